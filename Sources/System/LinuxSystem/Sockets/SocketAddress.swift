import Glibc
import SystemPackage

/// An address at which a socket listens, or to which it connects.
package enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// A host name or address, and a port.
    ///
    /// The host `*` stands for every address of a host. Port 0 lets the kernel choose a port when listening.
    case tcp(host: String, port: UInt16)
    /// A path in the file system, 1 to 4095 bytes long.
    case unix(path: String)

    /// Whether listening at one address may rule out listening at the other, because their port or path is the same.
    package func sharesPort(with other: SocketAddress) -> Bool {
        switch (self, other) {
        case (.tcp(_, let one), .tcp(_, let other)): one == other && one != 0
        case (.unix, .unix): self == other
        case (.tcp, .unix), (.unix, .tcp): false
        }
    }

    /// Parses `tcp:HOST:PORT`, `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` or a path that begins with `/`, `./` or `../`.
    ///
    /// - Throws: a ``SocketAddressError`` that shows the accepted forms.
    package init(_ text: String) throws(SocketAddressError) {
        if text.hasPrefix("unix:") {
            self = .unix(path: String(text.dropFirst(5)))
        } else if text.hasPrefix("/") || text.hasPrefix("./") || text.hasPrefix("../") {
            self = .unix(path: text)
        } else {
            let rest = text.hasPrefix("tcp:") ? text.dropFirst(4) : text[...]
            if let scheme = SocketAddress.scheme(of: rest) {
                throw SocketAddressError(text: text, reason: "an address does not begin with '\(scheme)'")
            }
            guard let colon = rest.lastIndex(of: ":") else { throw SocketAddressError(text: text, reason: "no port") }
            guard let port = UInt16(rest[rest.index(after: colon)...]) else {
                throw SocketAddressError(text: text, reason: "a port is a number from 0 to 65535")
            }
            var host = rest[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                throw SocketAddressError(text: text, reason: "an IPv6 address must be in brackets")
            }
            guard !host.isEmpty else { throw SocketAddressError(text: text, reason: "no host") }
            self = .tcp(host: String(host), port: port)
        }
        guard case .unix(let path) = self else { return }
        guard SocketAddress.pathLengths.contains(path.utf8.count) else {
            throw SocketAddressError(text: text, reason: SocketAddress.pathRule)
        }
    }

    /// Returns the beginning of a text that is no host, such as `http://` or `ssh:`; nil if there is none.
    private static func scheme(of text: Substring) -> Substring? {
        if let slashes = text.firstRange(of: "//") { return text[..<slashes.upperBound] }
        guard let colon = text.firstIndex(of: ":"), text[text.index(after: colon)...].contains(":") else { return nil }
        // An IPv6 address begins with a bracket, or should: its digits are hexadecimal.
        let isPartOfHost = text[..<colon].allSatisfy { $0.isASCII && ($0.isHexDigit || $0 == "[") }
        return isPartOfHost ? nil : text[...colon]
    }

    /// The lengths that fit into `sun_path` with a terminating zero; longer paths are reached through a descriptor.
    static let shortPaths = 1...107
    /// The lengths that the kernel resolves.
    private static let pathLengths = 1...4095
    private static let pathRule = "a socket's path has 1 to 4095 bytes"

    /// Refuses a path that the kernel would cut short, or take for no path at all.
    static func checkPath(_ path: String, for action: @autoclosure () -> String) throws(SystemError) {
        guard pathLengths.contains(path.utf8.count), !path.utf8.contains(0) else {
            throw SystemError(action(), path.isEmpty ? .invalidArgument : .fileNameTooLong, advice: pathRule)
        }
    }

    /// The address in a form that ``init(_:)`` parses.
    package var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    /// Whether the address stands for every address of a host; a socket can listen there, but not connect.
    package var isEveryAddress: Bool {
        guard case .tcp(let host, _) = self else { return false }
        var (four, six) = (in_addr(), in6_addr())
        return host == SocketAddress.everyHost || inet_pton(AF_INET, host, &four) == 1 && four.s_addr == 0
            || inet_pton(AF_INET6, host, &six) == 1 && withUnsafeBytes(of: &six) { $0.allSatisfy { $0 == 0 } }
    }

    /// The host that stands for every address of a host, IPv4 and IPv6.
    static let everyHost = "*"

    /// Throws the error that listening at the address would throw now if the resolver does not know its host.
    package func requireKnownHost() throws(SystemError) { try ResolvedAddress.require(self) }

    /// Whether only this host can reach the address: a Unix socket, or an address of the loopback interface.
    package var isLocal: Bool {
        switch self {
        case .tcp(let host, _):
            // A host name may begin like a loopback address, as in `127.example`.
            host == "localhost" || host == "::1"
                || host.hasPrefix("127.") && host.utf8.allSatisfy { (48...57).contains($0) || $0 == 46 }
        case .unix: true
        }
    }
}

/// A text that is not a socket address.
package struct SocketAddressError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The text.
    package let text: String
    /// What is wrong with the text.
    package let reason: String

    /// The reason and the accepted forms, in one line.
    package var description: String {
        "'\(text)' is not a socket address: \(reason); write tcp:HOST:PORT or unix:PATH"
    }
}
