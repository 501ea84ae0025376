/// Where a QMP server listens.
///
/// Its text is `unix:PATH` or `tcp:HOST:PORT`; an IPv6 host stands in brackets.
public enum QMPAddress: Sendable, Hashable {
    /// A Unix socket by its path.
    case unix(path: String)
    /// A TCP port. Port 0 asks for any free one.
    case tcp(host: String, port: UInt16)
}

extension QMPAddress: LosslessStringConvertible {
    /// Reads `unix:PATH`, `/PATH`, `tcp:HOST:PORT`, `HOST:PORT` or `[IPV6]:PORT`; nil for anything else.
    public init?(_ text: String) {
        if text.hasPrefix("/") {
            self = .unix(path: text)
        } else if text.hasPrefix("unix:") {
            let path = String(text.dropFirst("unix:".count))
            guard !path.isEmpty else { return nil }
            self = .unix(path: path)
        } else {
            self.init(hostAndPort: text.hasPrefix("tcp:") ? text.dropFirst("tcp:".count) : Substring(text))
        }
    }

    private init?(hostAndPort: Substring) {
        guard let colon = hostAndPort.lastIndex(of: ":"),
            let port = UInt16(hostAndPort[hostAndPort.index(after: colon)...])
        else { return nil }
        var host = hostAndPort[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty else { return nil }
        self = .tcp(host: String(host), port: port)
    }

    /// The text that ``init(_:)`` reads.
    public var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
        }
    }
}
