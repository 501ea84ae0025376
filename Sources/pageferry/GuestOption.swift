import ArgumentParser
import LinuxSystem

/// A guest of another program: `firecracker:API-SOCKET`.
struct GuestOption: ExpressibleByArgument, CustomStringConvertible {
    /// Firecracker's API socket.
    let socketPath: String

    private static let firecracker = "firecracker:"

    init?(argument: String) {
        guard argument.hasPrefix(GuestOption.firecracker) else { return nil }
        socketPath = String(argument.dropFirst(GuestOption.firecracker.count))
        guard (try? SocketAddress("unix:\(socketPath)")) != nil else { return nil }
    }

    var description: String { GuestOption.firecracker + socketPath }
}
