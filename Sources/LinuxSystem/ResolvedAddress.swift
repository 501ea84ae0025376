import Glibc
import SystemPackage

/// A host and port as the resolver knows them: one address or several.
struct ResolvedAddress: ~Copyable {
    private let list: UnsafeMutablePointer<addrinfo>

    init(host: String, port: UInt16, passive: Bool) throws(SystemError) {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        hints.ai_flags = passive ? AI_PASSIVE : 0
        var found: UnsafeMutablePointer<addrinfo>?
        let result = getaddrinfo(host, String(port), &hints, &found)
        guard result == 0, let found else {
            throw SystemError(
                "find the host '\(host)' (\(String(cString: gai_strerror(result))))",
                .noSuchAddressOrDevice,
                advice: "check its name"
            )
        }
        list = found
    }

    /// Takes over what getaddrinfo has found.
    init(adopting list: UnsafeMutablePointer<addrinfo>) {
        self.list = list
    }

    deinit {
        freeaddrinfo(list)
    }

    /// How many addresses there are, at least 1.
    var count: Int { sequence(first: list, next: { $0.pointee.ai_next }).reduce(0) { count, _ in count + 1 } }

    /// Does something with the first address with which it can be done, in the resolver's order: that a host has an
    /// address does not say that it can be reached there.
    ///
    /// - Throws: why the last of them failed.
    func tryEach<Value: ~Copyable>(
        _ body: (_ family: CInt, UnsafePointer<sockaddr>, socklen_t) throws(SystemError) -> Value
    ) throws(SystemError) -> Value {
        var entry = list
        while true {
            do throws(SystemError) {
                return try body(entry.pointee.ai_family, entry.pointee.ai_addr, entry.pointee.ai_addrlen)
            } catch {
                guard let next = entry.pointee.ai_next else { throw error }
                entry = next
            }
        }
    }

    /// The other end of a TCP connection, as `HOST:PORT`.
    static func peer(of descriptor: CInt) -> String {
        var name = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var host = [CChar](repeating: 0, count: 64)
        var port = [CChar](repeating: 0, count: 8)
        let known = withUnsafeMutableBytes(of: &name) { bytes in
            guard let address = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress,
                getpeername(descriptor, address, &length) == 0
            else { return false }
            return getnameinfo(address, length, &host, 64, &port, 8, NI_NUMERICHOST | NI_NUMERICSERV) == 0
        }
        guard known else { return "a peer that has left" }
        return [host, port].map { String(decoding: $0.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self) }
            .joined(separator: ":")
    }
}
