import CShims
import Glibc
import SystemPackage

/// A socket that others connect to.
public struct Listener: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor
    /// Where it listens, with the port the kernel chose.
    public let address: SocketAddress
    /// The file of a Unix socket; nil for TCP.
    public let file: SocketFile?

    /// Listens at an address.
    ///
    /// A Unix socket has mode 0600 from its first instant, and replaces a socket file that nobody listens on.
    public init(at address: SocketAddress, backlog: CInt = 128) throws(SystemError) {
        switch address {
        case .unix(let path):
            let descriptor = try Listener.socket(AF_UNIX)
            let raw = descriptor.raw
            let file = try SocketFile(binding: descriptor, to: path)
            _ = try attempt("listen at \(address)") { () throws(Errno) in
                try kernel(.listen) { orErrno(listen(raw, backlog)) }
            }
            self.init(descriptor, address, file)
        case .tcp(let host, let port):
            let resolved = try ResolvedAddress(host: host, port: port, passive: true)
            let descriptor = try Listener.socket(resolved.family)
            let raw = descriptor.raw
            var one: CInt = 1
            var bound = port
            try attempt("listen at \(address)", advice: "choose a free port, or 0 for any") { () throws(Errno) in
                _ = try kernel(.setsockopt) { orErrno(setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &one, 4)) }
                _ = try kernel(.bind) { orErrno(resolved.withAddress { bind(raw, $0, $1) }) }
                _ = try kernel(.listen) { orErrno(listen(raw, backlog)) }
                var name = sockaddr_storage()
                var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
                _ = try kernel(.getsockname) {
                    withUnsafeMutableBytes(of: &name) {
                        orErrno(getsockname(raw, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, &length))
                    }
                }
                // sin_port and sin6_port both are the two bytes after the family, in network order.
                bound = withUnsafeBytes(of: &name) { UInt16($0[2]) << 8 | UInt16($0[3]) }
            }
            self.init(descriptor, .tcp(host: host, port: bound), nil)
        }
    }

    private init(_ descriptor: consuming OwnedDescriptor, _ address: SocketAddress, _ file: SocketFile?) {
        self.descriptor = descriptor
        self.address = address
        self.file = file
    }

    static func socket(_ family: CInt, isBlocking: Bool = true) throws(SystemError) -> OwnedDescriptor {
        let flags = SOCK_CLOEXEC.rawValue | (isBlocking ? 0 : SOCK_NONBLOCK.rawValue)
        return try attempt("make a socket", advice: "raise `ulimit -n`") { () throws(Errno) in
            OwnedDescriptor(
                try kernel(.socket) { orErrno(Glibc.socket(family, CInt(SOCK_STREAM.rawValue | flags), 0)) }
            )
        }
    }

    /// Waits for the next connection.
    ///
    /// - Returns: nil when the listener was shut down.
    public func accept() throws(SystemError) -> StreamSocket? {
        while true {
            do throws(Errno) {
                let raw = try kernel(.accept4) { shim_accept4(descriptor.raw, CInt(SOCK_CLOEXEC.rawValue)) }
                let accepted = OwnedDescriptor(raw)
                guard case .tcp = address else {
                    return StreamSocket(accepted, peer: "process \(max(0, shim_peer_process(raw)))")
                }
                let socket = StreamSocket(accepted, peer: ResolvedAddress.peer(of: raw))
                do {
                    try socket.prepareTCP()
                } catch {
                    continue  // The peer is gone already.
                }
                return socket
            } catch .invalidArgument {
                return nil
            } catch  where Listener.concernsConnection(error) {
                continue
            } catch {
                throw SystemError("accept a connection at \(address)", error)
            }
        }
    }

    /// Whether an error of accept is that of the connection which was to be accepted, not the listener's: accept(2)
    /// passes them on.
    private static func concernsConnection(_ error: Errno) -> Bool {
        switch error {
        case .connectionAbort, .protocolError, .networkDown, .networkUnreachable, .hostIsDown, .noRouteToHost,
            .notPermitted:
            true
        default:
            false
        }
    }

    /// Ends the listening: a thread blocked in ``accept()`` returns nil.
    public func shutdown() {
        _ = try? kernel(.shutdown) { orErrno(Glibc.shutdown(descriptor.raw, CInt(SHUT_RDWR))) }
    }

    /// Hands the listening descriptor to code that closes it.
    public consuming func relinquish() -> CInt {
        descriptor.relinquish()
    }
}

/// A host and port as the resolver knows them.
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

    deinit {
        freeaddrinfo(list)
    }

    var family: CInt { list.pointee.ai_family }

    func withAddress<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        body(list.pointee.ai_addr, list.pointee.ai_addrlen)
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
