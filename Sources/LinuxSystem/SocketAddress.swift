import SystemPackage

/// Where a socket listens or connects to.
public enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// A host name or address, and a port; port 0 lets the kernel choose when listening.
    case tcp(host: String, port: UInt16)
    /// A path in the file system, at most 107 bytes.
    case unix(path: String)

    /// Whether listening at one address may rule out listening at the other: the port, or the path, is the same.
    public func sharesPort(with other: SocketAddress) -> Bool {
        switch (self, other) {
        case (.tcp(_, let one), .tcp(_, let other)): one == other && one != 0
        case (.unix, .unix): self == other
        case (.tcp, .unix), (.unix, .tcp): false
        }
    }

    /// Reads `tcp:HOST:PORT`, `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` or a path that holds a slash.
    ///
    /// - Throws: ``SocketAddressError`` that shows the forms it takes.
    public init(_ text: String) throws(SocketAddressError) {
        if text.hasPrefix("unix:") {
            self = .unix(path: String(text.dropFirst(5)))
        } else if text.hasPrefix("/") || text.hasPrefix("./") || text.hasPrefix("../") {
            self = .unix(path: text)
        } else {
            let rest = text.hasPrefix("tcp:") ? text.dropFirst(4) : text[...]
            guard let colon = rest.lastIndex(of: ":") else { throw SocketAddressError(text: text, reason: "no port") }
            guard let port = UInt16(rest[rest.index(after: colon)...]) else {
                throw SocketAddressError(text: text, reason: "a port is a number from 0 to 65535")
            }
            var host = rest[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                throw SocketAddressError(text: text, reason: "an IPv6 address stands in brackets")
            }
            guard !host.isEmpty else { throw SocketAddressError(text: text, reason: "no host") }
            self = .tcp(host: String(host), port: port)
        }
        guard case .unix(let path) = self else { return }
        guard SocketAddress.pathLengths.contains(path.utf8.count) else {
            throw SocketAddressError(text: text, reason: SocketAddress.pathRule)
        }
    }

    /// What fits into `sun_path`, with a zero at its end.
    private static let pathLengths = 1...107
    private static let pathRule = "a socket's path has 1 to 107 bytes"

    /// Refuses a path that the kernel's address would cut or take for none.
    static func checkPath(_ path: String, for action: @autoclosure () -> String) throws(SystemError) {
        guard pathLengths.contains(path.utf8.count), !path.utf8.contains(0) else {
            throw SystemError(action(), path.isEmpty ? .invalidArgument : .fileNameTooLong, advice: pathRule)
        }
    }

    /// The form that ``init(_:)`` reads.
    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    /// Whether only this host can reach it: a Unix socket, or an address of the loopback interface.
    public var isLocal: Bool {
        switch self {
        case .tcp(let host, _):
            // A name may begin as such an address does.
            host == "localhost" || host == "::1"
                || host.hasPrefix("127.") && host.utf8.allSatisfy { (48...57).contains($0) || $0 == 46 }
        case .unix: true
        }
    }
}

/// A text that is no socket address.
public struct SocketAddressError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was read.
    public let text: String
    /// What is wrong with it.
    public let reason: String

    /// One line with the forms that are taken.
    public var description: String {
        "'\(text)' is no socket address: \(reason); write tcp:HOST:PORT or unix:PATH"
    }
}
