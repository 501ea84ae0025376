import LinuxSystem
import QMP

extension QMPCommand {
    /// The address of the peer of a migration: `uri`, or `channels` with one main channel over a socket.
    ///
    /// - Throws: `QMPError` for arguments of another shape and for unsupported transports, `SocketAddressError` for a
    ///   text that is no address.
    func migrationAddress() throws -> SocketAddress {
        switch (arguments["uri"] != nil, try arrayIfPresent("channels")) {
        case (true, nil): return try uriAddress()
        case (false, let channels?): return try mainAddress(of: channels)
        case (true, _?):
            throw QMPError.generic(
                "'uri' and 'channels' arguments are mutually exclusive; give exactly one of the two to '\(name)'"
            )
        case (false, nil): throw QMPError.generic("Parameter 'uri' is missing")
        }
    }

    /// The address that `uri` names.
    ///
    /// - Throws: `QMPError` if the argument is missing or names an unsupported transport, `SocketAddressError` for a
    ///   text that is no address.
    func uriAddress() throws -> SocketAddress {
        let uri = try string("uri")
        // Without this check, `fd:7` would mean port 7 of a host named `fd`.
        if let scheme = uri.split(separator: ":", maxSplits: 1).first, uri.utf8.count > scheme.utf8.count,
            let transport = Transport(rawValue: String(scheme))
        {
            throw QMPError.generic(
                "'\(uri)' asks for \(transport), which is not supported; use tcp:HOST:PORT or unix:PATH"
            )
        }
        return try SocketAddress(uri)
    }

    private func mainAddress(of channels: [JSONValue]) throws -> SocketAddress {
        guard let first = channels.first, channels.count == 1 else {
            let count = channels.isEmpty ? "no channel" : "\(channels.count) channels"
            throw QMPError.generic("'channels' has \(count); give one of type 'main'")
        }
        let channel = try inner(first, as: "channels[0]")
        try channel.allowOnly("channel-type", "addr")
        switch try channel.string("channel-type") {
        case "main": break
        case "cpr": throw QMPError.generic("a channel of type 'cpr' is not supported; give one of type 'main'")
        case let other: throw QMPError.generic("Parameter 'channel-type' does not accept value '\(other)'")
        }
        guard let address = channel.arguments["addr"] else { throw QMPError.generic("Parameter 'addr' is missing") }
        return try inner(address, as: "addr").socketAddress()
    }

    /// The address of a channel whose members are this command's arguments.
    private func socketAddress() throws -> SocketAddress {
        let transport = try string("transport")
        guard transport == "socket" else { throw refusal(of: transport, member: "transport") }
        switch try string("type") {
        case "inet":
            try allow("host", "port", options: ["numeric", "to", "ipv4", "ipv6", "keep-alive", "mptcp"])
            let (host, port) = (try string("host"), try string("port"))
            return try SocketAddress(host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)")
        case "unix":
            try allow("path", options: ["abstract", "tight"])
            return try SocketAddress("unix:\(string("path"))")
        case let other: throw refusal(of: other, member: "type")
        }
    }

    /// Refuses unknown members of a channel's address, and options that are on but not supported.
    private func allow(_ members: String..., options: [String]) throws(QMPError) {
        for (name, value) in arguments.sorted(by: { $0.key < $1.key })
        where !["transport", "type"].contains(name) && !members.contains(name) {
            guard options.contains(name) else { throw .generic("Parameter '\(name)' is unexpected") }
            // Keep-alive is always on, and `tight` matters only for abstract sockets; both are accepted with any value.
            guard value == false || name == "keep-alive" || name == "tight" else {
                throw .generic("Parameter '\(name)' of a channel's 'addr' is not supported; leave it out")
            }
        }
    }

    private func refusal(of name: String, member: String) -> QMPError {
        guard let transport = Transport(rawValue: name) else {
            return .generic("Parameter '\(member)' does not accept value '\(name)'")
        }
        return .generic(
            "'channels' asks for \(transport), which is not supported; use a socket of type 'inet' or 'unix'"
        )
    }

    private func inner(_ value: JSONValue, as parameter: String) throws(QMPError) -> QMPCommand {
        guard let members = value.object else {
            throw .generic("Invalid parameter type for '\(parameter)', expected: object")
        }
        return QMPCommand(name: name, arguments: members)
    }
}

/// The transports of QEMU's migrations that are not supported here.
private enum Transport: String, CustomStringConvertible {
    case exec, fd, file, rdma, vsock

    var description: String {
        switch self {
        case .exec: "a command that is executed"
        case .fd: "an open file descriptor"
        case .file: "a file"
        case .rdma: "RDMA"
        case .vsock: "a vsock socket"
        }
    }
}
