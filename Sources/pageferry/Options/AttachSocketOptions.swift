import ArgumentParser
import LinuxSystem
import Logging

/// The options of `attach` about the sockets at which guests are handed over.
struct AttachSocketOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The Unix socket to create, at which Firecracker hands over guests. May be repeated. Without this option, "
                + "the sockets of the service manager are used (LISTEN_FDS).",
            valueName: "path"
        ),
        completion: .file()
    )
    var socket: [String] = []

    @Option(
        help: ArgumentHelp(
            "The owner of the sockets, such as the user and the group of a jailed Firecracker, by number (default: this "
                + "process's).",
            valueName: "uid:gid"
        ),
        transform: AttachSocketOptions.readOwner
    )
    var socketOwner: SocketAccess.Owner?

    @Option(
        help: ArgumentHelp("The mode of the sockets, in octal (default: 0600).", valueName: "mode"),
        transform: AttachSocketOptions.readMode
    )
    var socketMode: UInt32?

    private static func readOwner(_ text: String) throws -> SocketAccess.Owner {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let user = readNumber(parts[0]), let group = readNumber(parts[1]) else {
            throw ValidationError("write UID:GID, two numbers, such as 1234:1234")
        }
        return SocketAccess.Owner(user: user, group: group)
    }

    /// Reads the number of a user or group; the highest number of 32 bits stands for none.
    static func readNumber(_ text: Substring) -> UInt32? {
        guard text.allSatisfy(\.isNumber), let number = UInt32(text), number < .max else { return nil }
        return number
    }

    private static func readMode(_ text: String) throws -> UInt32 {
        guard (1...4).contains(text.utf8.count), !text.hasPrefix("+"), let mode = UInt32(text, radix: 8), mode <= 0o777
        else { throw ValidationError("write the mode in octal, such as 0660") }
        guard mode & 0o222 != 0 else {
            throw ValidationError("with this mode nobody could connect: to connect, a process needs the write bit")
        }
        return mode
    }

    func validate() throws {
        let addresses = try addresses()
        if let twice = addresses.indices.first(where: { addresses[..<$0].contains(addresses[$0]) }) {
            throw ValidationError("--socket \(socket[twice]) is given twice; drop one, or choose another path")
        }
        guard !socket.isEmpty || ServiceSockets.areHere else {
            throw ValidationError("missing expected argument '--socket <path>'")
        }
        guard !socket.isEmpty || socketOwner == nil && socketMode == nil else {
            throw ValidationError(
                "--socket-owner and --socket-mode are for sockets that are created; set SocketUser= and SocketMode= in "
                    + "the socket unit of the service manager"
            )
        }
    }

    /// The addresses of `--socket`.
    func addresses() throws -> [SocketAddress] {
        try socket.map { path in
            do throws(SocketAddressError) {
                return try SocketAddress("unix:\(path)")
            } catch {
                throw ValidationError("--socket: \(error.reason)")
            }
        }
    }

    /// Listens at the sockets.
    ///
    /// - Parameters:
    ///   - given: the descriptors of the service manager.
    ///   - logger: receives a line for each descriptor that is not used.
    func listeners(_ given: ServiceSockets, _ logger: Logger) throws -> [Handover<Listener>] {
        for refusal in given.refusals { logger.error("\(refusal)") }
        guard !socket.isEmpty else {
            guard !given.listeners.isEmpty else {
                throw Failure("the service manager gave no Unix stream socket that listens; name one with --socket")
            }
            return given.listeners
        }
        for (listener, address) in zip(given.listeners, given.addresses) {
            _ = listener.take()
            logger.error("\(address) of the service manager was closed, since --socket is given; drop one of the two")
        }
        let access = SocketAccess(owner: socketOwner, mode: socketMode ?? SocketAccess.ownUser.mode)
        return try addresses().map { Handover(try Listener(at: $0, access)) }
    }
}
