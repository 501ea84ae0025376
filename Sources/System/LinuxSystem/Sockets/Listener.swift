import CShims
import Glibc
import Synchronization
import SystemPackage

/// A socket that listens for connections, TCP or Unix.
package struct Listener: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    private let isShutDown = Atomic<Bool>(false)
    /// Where the socket listens, with the port that the kernel chose.
    package let address: SocketAddress
    /// The file of a Unix socket that this process has made; nil for TCP and for an inherited socket.
    package let file: SocketFile?
    /// Raised to end the wait of a thread at an inherited socket, which other processes may use further.
    private let wake: EventDescriptor?

    /// Listens at an address.
    ///
    /// A Unix socket's file has its owner and mode from its first instant. It replaces a socket file at which no process
    /// listens.
    ///
    /// - Parameters:
    ///   - address: where to listen.
    ///   - access: who may connect to a Unix socket.
    ///   - backlog: the most connections that wait to be accepted.
    package init(
        at address: SocketAddress,
        _ access: SocketAccess = .ownUser,
        backlog: CInt = 128
    ) throws(SystemError) {
        switch address {
        case .unix(let path):
            let descriptor = try Listener.socket(AF_UNIX)
            let file = try SocketFile(listeningWith: descriptor, at: path, access, backlog: backlog)
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

    /// What to do if a TCP socket cannot listen.
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
        // sin_port and sin6_port are both the two bytes after the family, in network byte order.
        return withUnsafeBytes(of: &name) { UInt16($0[2]) << 8 | UInt16($0[3]) }
    }

    private init(_ descriptor: consuming OwnedDescriptor, _ address: SocketAddress, _ file: SocketFile?) {
        self.descriptor = descriptor
        self.address = address
        self.file = file
        wake = nil
        wakeDescriptor = -1
    }

    /// Takes over a Unix socket that listens already and that other processes may hold too.
    ///
    /// The socket's file stays, and ``shutdown()`` does not end the socket for others.
    init(inheriting descriptor: consuming OwnedDescriptor, at address: SocketAddress) throws(SystemError) {
        let wake = try EventDescriptor()
        wakeDescriptor = wake.descriptor.raw
        self.wake = consume wake
        self.descriptor = descriptor
        self.address = address
        file = nil
    }

    /// The descriptor of the event that ``shutdown()`` raises; -1 if shutdown(2) ends the wait.
    let wakeDescriptor: CInt

    static func socket(_ family: CInt, isBlocking: Bool = true) throws(SystemError) -> OwnedDescriptor {
        let flags = SOCK_CLOEXEC.rawValue | (isBlocking ? 0 : SOCK_NONBLOCK.rawValue)
        return try attempt("make a socket", advice: "raise `ulimit -n`") { () throws(Errno) in
            OwnedDescriptor(
                try kernel(.socket) { orErrno(Glibc.socket(family, CInt(SOCK_STREAM.rawValue | flags), 0)) }
            )
        }
    }

    /// The outcome of an attempt to accept a connection.
    enum Arrival: ~Copyable, Sendable {
        /// A peer has connected.
        case connection(StreamSocket)
        /// A peer waits, but this process or host lacks descriptors or memory to accept it: try again later.
        case shortage(SystemError)
        /// The listener was shut down.
        case shutDown
        /// No peer has connected.
        case nobody
    }

    /// Whether the listener was shut down.
    var isClosed: Bool { isShutDown.load(ordering: .acquiring) }

    /// Accepts the next connection.
    ///
    /// - Parameter isWaiting: whether to wait for a peer if none has connected.
    func next(isWaiting: Bool = true) throws(SystemError) -> Arrival {
        while true {
            if !isWaiting, !isReadable { return .nobody }
            do throws(Errno) {
                let raw = try kernel(.accept4) { shim_accept4(descriptor.raw, CInt(SOCK_CLOEXEC.rawValue)) }
                let accepted = OwnedDescriptor(raw)
                guard case .tcp = address else {
                    let origin = PeerOrigin(ofUnixPeer: raw)
                    let process = shim_peer_process(raw)
                    let name = process > 0 ? "process \(process)" : "a process of another PID namespace"
                    return .connection(StreamSocket(accepted, peer: name, origin: origin))
                }
                let origin = PeerOrigin(ofTCPPeer: raw)
                let socket = StreamSocket(accepted, peer: ResolvedAddress.peer(of: raw), origin: origin)
                do {
                    try socket.prepareTCP()
                } catch {
                    continue  // The peer has disconnected already.
                }
                return .connection(socket)
            } catch .invalidArgument {
                return .shutDown
            } catch .resourceTemporarilyUnavailable {
                // Another process with the same socket was faster.
                guard isWaiting else { return .nobody }
                sched_yield()
            } catch  where Listener.concernsConnection(error) {
                // The connection failed before it was accepted. Its peer connects again.
                continue
            } catch  where Listener.isShortage(error) {
                // accept(2) takes a descriptor before it looks at the socket, and so reports a shortage even after a
                // shutdown.
                guard !isClosed else { return .shutDown }
                return .shortage(SystemError("accept a connection at \(address)", error, advice: "raise `ulimit -n`"))
            } catch {
                throw SystemError("accept a connection at \(address)", error)
            }
        }
    }

    private var isReadable: Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory; the listener then counts as not readable.
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, 0)) }) == 1
    }

    /// Waits for the next connection, and throws on a shortage.
    ///
    /// - Returns: nil if the listener was shut down.
    package func accept() throws(SystemError) -> StreamSocket? {
        switch try next() {
        case .connection(let socket): return socket
        case .shortage(let error): throw error
        case .shutDown: return nil
        case .nobody: return nil
        }
    }

    /// Whether an error of accept(2) is a shortage, which passes when descriptors or memory are released.
    private static func isShortage(_ error: Errno) -> Bool {
        switch error {
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noBufferSpace, .noMemory: true
        default: false
        }
    }

    /// Whether an error of accept(2) belongs to the connection to be accepted, and not to the listener.
    ///
    /// accept(2) passes on network errors of the new connection.
    private static func concernsConnection(_ error: Errno) -> Bool {
        switch error {
        case .connectionAbort, .protocolError, .networkDown, .networkUnreachable, .hostIsDown, .noRouteToHost,
            .notPermitted:
            true
        default:
            false
        }
    }

    /// Stops listening: a thread that waits for a connection returns.
    package func shutdown() {
        isShutDown.store(true, ordering: .releasing)
        guard wakeDescriptor < 0 else {
            wake?.raise()
            return
        }
        // A socket that does not listen any more needs no shutdown.
        _ = try? kernel(.shutdown) { orErrno(Glibc.shutdown(descriptor.raw, CInt(SHUT_RDWR))) }
    }

    /// Hands the listening descriptor to code that will close it.
    package consuming func relinquish() -> CInt {
        descriptor.relinquish()
    }
}
