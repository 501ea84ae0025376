import LinuxSystem

/// Which names of this host a client may use.
///
/// A page of another site can make a browser send requests here under that site's own name, by changing the address of
/// the name (DNS rebinding). A name that the operator has not given is therefore refused. An address is no name, and
/// cannot be changed in that way.
struct HostCheck: Sendable {
    /// The names, in lower case; nil to allow every name.
    private let names: Set<String>?

    /// Allows `localhost`, every address, the name at which the server listens, and some names.
    ///
    /// - Parameters:
    ///   - address: where the server listens; no browser reaches a Unix socket, so every name is allowed there.
    ///   - names: further names.
    init(_ address: SocketAddress, names: [String]) {
        switch address {
        case .tcp(let host, _): self.names = Set((names + ["localhost", host]).map { $0.lowercased() })
        case .unix: self.names = nil
        }
    }

    /// Whether a client may use a value of the header `Host`.
    func allows(_ header: String?) -> Bool {
        guard let names else { return true }
        guard let header, let host = HostCheck.host(of: header) else { return false }
        return HostCheck.isAddress(host) || names.contains(host.lowercased())
    }

    /// The host of `HOST` or `HOST:PORT`, without the brackets of an IPv6 address; nil for another text.
    private static func host(of header: String) -> Substring? {
        if header.hasPrefix("[") {
            guard let end = header.firstIndex(of: "]"), isPort(header[header.index(after: end)...]) else { return nil }
            return header[header.index(after: header.startIndex)..<end]
        }
        let host = header.prefix { $0 != ":" }
        guard !host.isEmpty, isPort(header[host.endIndex...]) else { return nil }
        return host
    }

    private static func isPort(_ rest: Substring) -> Bool {
        rest.isEmpty || rest.first == ":" && isDecimal(rest.dropFirst())
    }

    /// Whether a host is an IPv4 or IPv6 address: a name cannot consist of digits and dots only, nor contain a colon.
    private static func isAddress(_ host: Substring) -> Bool {
        if host.contains(":") { return host.utf8.allSatisfy { isHexDigit($0) || $0 == 58 || $0 == 46 } }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts.allSatisfy { isDecimal($0) && UInt8($0) != nil }
    }

    /// Whether a text has digits only: a number of Swift may begin with a sign, which a name may have too.
    private static func isDecimal(_ text: Substring) -> Bool { text.utf8.allSatisfy { (48...57).contains($0) } }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (97...102).contains(byte) || (65...70).contains(byte)
    }
}
