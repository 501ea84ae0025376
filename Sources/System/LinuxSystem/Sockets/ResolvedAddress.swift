import Glibc
import SystemPackage

/// A host and port as the resolver knows them, with one address or several.
struct ResolvedAddress: ~Copyable {
    private let list: UnsafeMutablePointer<addrinfo>

    init(host: String, port: UInt16, passive: Bool) throws(SystemError) {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        hints.ai_flags = passive ? AI_PASSIVE : 0
        var found: UnsafeMutablePointer<addrinfo>?
        let isEvery = passive && host == SocketAddress.everyHost
        let result = getaddrinfo(isEvery ? nil : host, String(port), &hints, &found)
        guard result == 0, let found else {
            // The resolver says of a name that it could not look up for want of descriptors that the name is unknown.
            if let shortage = DescriptorLimit.reached {
                throw SystemError(
                    "resolve the host '\(host)'",
                    shortage,
                    advice: SystemError.advice(onShortage: shortage)
                )
            }
            // The resolver has reasons of its own, beside the kernel's.
            throw SystemError(
                "resolve the host '\(host)'",
                .noSuchAddressOrDevice,
                reason: String(cString: gai_strerror(result)),
                advice: "check its name"
            )
        }
        list = found
    }

    /// Refuses an address whose host the resolver does not know.
    static func require(_ address: SocketAddress) throws(SystemError) {
        guard case .tcp(let host, let port) = address else { return }
        _ = try ResolvedAddress(host: host, port: port, passive: true)
    }

    /// Takes over a list that getaddrinfo(3) has returned.
    init(adopting list: UnsafeMutablePointer<addrinfo>) {
        self.list = list
    }

    deinit {
        freeaddrinfo(list)
    }

    /// The number of addresses, at least 1.
    var count: Int { sequence(first: list, next: { $0.pointee.ai_next }).reduce(0) { count, _ in count + 1 } }

    /// Runs `body` with one address after the other, in the resolver's order, until it succeeds.
    ///
    /// A host may not be reachable at each of its addresses.
    ///
    /// - Throws: the error for the last address.
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
        guard known else { return "a disconnected peer" }
        return [host, port].map { String(decoding: $0.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self) }
            .joined(separator: ":")
    }
}
