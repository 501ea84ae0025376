import ArgumentParser
import LinuxSystem

/// The value of `--guest`: a microVM of Firecracker, as `firecracker:API-SOCKET`.
struct GuestOption: ExpressibleByArgument, CodableAsText {
    /// The path of Firecracker's API socket.
    let socketPath: String

    private static let firecracker = "firecracker:"

    init?(argument: String) {
        guard argument.hasPrefix(GuestOption.firecracker) else { return nil }
        socketPath = String(argument.dropFirst(GuestOption.firecracker.count))
        // The caller's error says which form the option has.
        guard (try? SocketAddress("unix:\(socketPath)")) != nil else { return nil }
    }

    var description: String { GuestOption.firecracker + socketPath }
}
