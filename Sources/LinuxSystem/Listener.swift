import CShims
import Glibc
import Synchronization
import SystemPackage

/// A socket that others connect to.
public struct Listener: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    private let isShutDown = Atomic<Bool>(false)
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
            try SocketAddress.checkPath(path, for: "listen at \(address)")
            let descriptor = try Listener.socket(AF_UNIX)
            let raw = descriptor.raw
            let file = try SocketFile(binding: descriptor, to: path)
            _ = try attempt("listen at \(address)") { () throws(Errno) in
                try kernel(.listen) { orErrno(listen(raw, backlog)) }
            }
            self.init(descriptor, address, file)
        case .tcp(let host, let port):
            let resolved = try ResolvedAddress(host: host, port: port, passive: true)
            self = try resolved.tryEach { (family, name, length) throws(SystemError) in
                let descriptor = try Listener.socket(family)
                let raw = descriptor.raw
                var one: CInt = 1
                do throws(Errno) {
                    _ = try kernel(.setsockopt) { orErrno(setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &one, 4)) }
                    _ = try kernel(.bind) { orErrno(bind(raw, name, length)) }
                    _ = try kernel(.listen) { orErrno(listen(raw, backlog)) }
                } catch {
                    throw SystemError("listen at \(address)", error, advice: Listener.remedy(for: error))
                }
                return Listener(descriptor, .tcp(host: host, port: try Listener.port(of: raw)), nil)
            }
        }
    }

    /// What to do where a TCP socket cannot listen.
    private static func remedy(for error: Errno) -> String? {
        switch error {
        case .addressInUse: "choose a free port, or 0 for any"
        case .addressNotAvailable: "choose an address of this host"
        case .permissionDenied: "choose a port from 1024 on, or 0 for any"
        default: nil
        }
    }

    /// The port that a TCP socket is bound to.
    private static func port(of raw: CInt) throws(SystemError) -> UInt16 {
        var name = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        _ = try attempt("find the port that a socket listens at") { () throws(Errno) in
            try kernel(.getsockname) {
                withUnsafeMutableBytes(of: &name) {
                    orErrno(getsockname(raw, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, &length))
                }
            }
        }
        // sin_port and sin6_port both are the two bytes after the family, in network order.
        return withUnsafeBytes(of: &name) { UInt16($0[2]) << 8 | UInt16($0[3]) }
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

    /// What has come of a look for a connection.
    enum Arrival: ~Copyable, Sendable {
        /// Somebody has connected.
        case connection(StreamSocket)
        /// Somebody waits, and this process or host lacks descriptors or memory to accept them: try again when others
        /// may have been given back.
        case shortage(SystemError)
        /// The listener was shut down.
        case shutDown
        /// No peer has connected.
        case nobody
    }

    /// Whether the listener was shut down.
    var isClosed: Bool { isShutDown.load(ordering: .acquiring) }

    /// The next connection.
    ///
    /// - Parameter isWaiting: whether to wait for one.
    func next(isWaiting: Bool = true) throws(SystemError) -> Arrival {
        while true {
            if !isWaiting, !isReadable { return .nobody }
            do throws(Errno) {
                let raw = try kernel(.accept4) { shim_accept4(descriptor.raw, CInt(SOCK_CLOEXEC.rawValue)) }
                let accepted = OwnedDescriptor(raw)
                guard case .tcp = address else {
                    let origin = PeerOrigin(ofUnixPeer: raw)
                    let name = "process \(max(0, shim_peer_process(raw)))"
                    return .connection(StreamSocket(accepted, peer: name, origin: origin))
                }
                let origin = PeerOrigin(ofTCPPeer: raw)
                let socket = StreamSocket(accepted, peer: ResolvedAddress.peer(of: raw), origin: origin)
                do {
                    try socket.prepareTCP()
                } catch {
                    continue  // The peer is gone already.
                }
                return .connection(socket)
            } catch .invalidArgument {
                return .shutDown
            } catch  where Listener.concernsConnection(error) {
                continue
            } catch  where Listener.isShortage(error) {
                // accept(2) takes a descriptor before it looks at the socket, and so does not tell of its end.
                guard !isClosed else { return .shutDown }
                return .shortage(SystemError("accept a connection at \(address)", error, advice: "raise `ulimit -n`"))
            } catch {
                throw SystemError("accept a connection at \(address)", error)
            }
        }
    }

    private var isReadable: Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, 0)) }) == 1
    }

    /// Waits for the next connection, where a shortage is a failure.
    ///
    /// - Returns: nil when the listener was shut down.
    public func accept() throws(SystemError) -> StreamSocket? {
        switch try next() {
        case .connection(let socket): return socket
        case .shortage(let error): throw error
        case .shutDown: return nil
        case .nobody: return nil
        }
    }

    /// Whether an error of accept passes by itself when others give back what they hold.
    private static func isShortage(_ error: Errno) -> Bool {
        switch error {
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noBufferSpace, .noMemory: true
        default: false
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

    /// Ends the listening: a thread that waits for a connection returns.
    public func shutdown() {
        isShutDown.store(true, ordering: .releasing)
        _ = try? kernel(.shutdown) { orErrno(Glibc.shutdown(descriptor.raw, CInt(SHUT_RDWR))) }
    }

    /// Hands the listening descriptor to code that closes it.
    public consuming func relinquish() -> CInt {
        descriptor.relinquish()
    }
}
