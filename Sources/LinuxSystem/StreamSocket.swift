import CShims
import Glibc
import SystemPackage

/// A connected stream socket, TCP or Unix, blocking. Any thread may send, any may receive, one of each at a time.
public struct StreamSocket: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// Who is at the other end, for messages.
    public let peer: String
    /// Where an accepted connection comes from.
    public let origin: PeerOrigin

    init(_ descriptor: consuming OwnedDescriptor, peer: String, origin: PeerOrigin = .unknown) {
        self.descriptor = descriptor
        self.peer = peer
        self.origin = origin
    }

    /// Seconds for an attempt that is followed by others: the kernel repeats its own request after 1, 3 and 7 s, and waits
    /// longer than a new attempt does when the peer is just back.
    public static let shortTimeout = 2

    /// Connects to an address; of a host with several, to the first that takes the connection.
    ///
    /// - Parameter timeout: seconds after which the attempt is given up; several addresses share them.
    public init(connectingTo address: SocketAddress, timeout: Int = 10) throws(SystemError) {
        self = try StreamSocket.connect(to: address, timeout: timeout)
    }

    private static func connect(to address: SocketAddress, timeout: Int) throws(SystemError) -> StreamSocket {
        switch address {
        case .unix(let path):
            try SocketAddress.checkPath(path, for: "connect to \(address)")
            let descriptor = try Listener.socket(AF_UNIX)
            let raw = descriptor.raw
            _ = try attempt("connect to \(address)", advice: "check that somebody listens there") { () throws(Errno) in
                try kernel(.connect) { shim_connect_unix(raw, path) }
            }
            return StreamSocket(descriptor, peer: address.description)
        case .tcp(let host, let port):
            let resolved = try ResolvedAddress(host: host, port: port, passive: false)
            let share = max(1, timeout / resolved.count)
            return try resolved.tryEach { (family, name, length) throws(SystemError) in
                let socket = StreamSocket(try Listener.socket(family), peer: address.description)
                try socket.connect(to: name, length, timeout: share)
                return socket
            }
        }
    }

    private func connect(
        to name: UnsafePointer<sockaddr>,
        _ length: socklen_t,
        timeout: Int
    ) throws(SystemError) {
        let raw = descriptor.raw
        try set(SOL_SOCKET, SO_SNDTIMEO, timeval(tv_sec: timeout, tv_usec: 0))
        _ = try attempt("connect to \(peer)", advice: "check that the agent listens there") { () throws(Errno) in
            do throws(Errno) {
                return try kernel(.connect) { orErrno(Glibc.connect(raw, name, length)) }
            } catch .nowInProgress {
                throw .timedOut  // How a blocking connect tells that SO_SNDTIMEO has passed.
            }
        }
        try set(SOL_SOCKET, SO_SNDTIMEO, timeval(tv_sec: 0, tv_usec: 0))
        try prepareTCP()
    }

    /// Makes two Unix sockets that are connected to each other.
    public static func pair() throws(SystemError) -> (SharedSocket, SharedSocket) {
        var ends: [CInt] = [-1, -1]
        let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        _ = try attempt("make two sockets", advice: "raise `ulimit -n`") { () throws(Errno) in
            try kernel(.socketpair) { orErrno(socketpair(AF_UNIX, type, 0, &ends)) }
        }
        let sockets = ends.map { SharedSocket(StreamSocket(OwnedDescriptor($0), peer: "the other end")) }
        return (sockets[0], sockets[1])
    }

    /// Sends all bytes.
    @inline(__always)
    public func send(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        var rest = bytes
        while !rest.isEmpty {
            let sent: Int
            do throws(Errno) {
                sent = try kernel(.send) {
                    orErrno(Glibc.send(descriptor.raw, rest.baseAddress, rest.count, CInt(MSG_NOSIGNAL)))
                }
            } catch {
                throw SystemError("send to \(peer)", error)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
        }
    }

    /// Sends all bytes.
    public func send(_ bytes: [UInt8]) throws(SystemError) {
        do {
            try bytes.withUnsafeBytes { try send($0) }
        } catch let error as SystemError {
            throw error
        } catch {
            preconditionFailure("send throws SystemError only")
        }
    }

    /// Sends all gathered pieces by as few calls as the kernel allows, and empties the buffer.
    @inline(__always)
    public func send(_ gathered: inout GatherBuffer) throws(SystemError) {
        var rest = gathered.take()[...]
        while !rest.isEmpty {
            var message = msghdr()
            message.msg_iov = UnsafeMutableBufferPointer(rebasing: rest).baseAddress
            message.msg_iovlen = min(rest.count, 1024)  // UIO_MAXIOV
            var sent: Int
            do throws(Errno) {
                sent = try kernel(.sendmsg) { orErrno(sendmsg(descriptor.raw, &message, CInt(MSG_NOSIGNAL))) }
            } catch {
                throw SystemError("send to \(peer)", error)
            }
            while let first = rest.first, sent >= first.iov_len {
                sent -= first.iov_len
                rest = rest.dropFirst()
            }
            if sent > 0 {
                rest[rest.startIndex].iov_base += sent
                rest[rest.startIndex].iov_len -= sent
            }
        }
    }

    /// Receives what has arrived, waiting for at least one byte.
    ///
    /// - Returns: bytes received; 0 when the peer has closed its side.
    @inline(__always)
    public func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        do throws(Errno) {
            return try kernel(.recv) { orErrno(recv(descriptor.raw, buffer.baseAddress, buffer.count, 0)) }
        } catch .resourceTemporarilyUnavailable {
            // On a blocking socket only a timeout that was set says this.
            throw SystemError("receive from \(peer)", .timedOut)
        } catch {
            throw SystemError("receive from \(peer)", error)
        }
    }

    /// Waits until bytes can be received, the peer has closed, or the flag is raised.
    public func waitToReceive(or flag: borrowing EventDescriptor) throws(SystemError) {
        var descriptors = (
            pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        )
        _ = try attempt("wait for \(peer)") { () throws(Errno) in
            try kernel(.poll) {
                withUnsafeMutableBytes(of: &descriptors) { bytes in
                    orErrno(poll(bytes.assumingMemoryBound(to: pollfd.self).baseAddress, 2, -1))
                }
            }
        }
    }

    /// Receives exactly as many bytes as the buffer holds.
    ///
    /// - Returns: bytes received; less than asked when the peer closed its side first.
    public func receive(exactly buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        var filled = 0
        while filled < buffer.count {
            let received = try receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            if received == 0 { break }
            filled += received
        }
        return filled
    }

    /// Receives what has arrived, without waiting.
    ///
    /// - Returns: bytes received, 0 when the peer has closed its side; nil when nothing has arrived.
    public func receiveNow(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        do throws(Errno) {
            return try kernel(.recv) {
                orErrno(recv(descriptor.raw, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT)))
            }
        } catch .resourceTemporarilyUnavailable {
            return nil
        } catch {
            throw SystemError("receive from \(peer)", error)
        }
    }

    /// Receives exactly as many bytes as the buffer holds, all of them before `deadline`.
    ///
    /// - Parameter deadline: in nanoseconds of ``MonotonicClock``; a peer that trickles cannot put it off.
    /// - Returns: bytes received; less than asked when the peer closed its side first.
    public func receive(
        exactly buffer: UnsafeMutableRawBufferPointer,
        before deadline: UInt64
    ) throws(SystemError) -> Int {
        var filled = 0
        while filled < buffer.count {
            let now = MonotonicClock.now()
            var arrival = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
            let milliseconds = deadline > now ? CInt(clamping: (deadline - now) / 1_000_000 + 1) : 0
            let ready = try attempt("receive from \(peer)") { () throws(Errno) in
                try kernel(.poll) { orErrno(poll(&arrival, 1, milliseconds)) }
            }
            guard ready > 0 else { throw SystemError("receive from \(peer)", .timedOut) }
            let received = try receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            if received == 0 { break }
            filled += received
        }
        return filled
    }

    /// Ends both directions at once: threads blocked in a call on this socket return from it.
    public func shutdown() {
        // ENOTCONN only says that the peer was faster.
        _ = try? kernel(.shutdown) { orErrno(Glibc.shutdown(descriptor.raw, CInt(SHUT_RDWR))) }
    }

    /// Lets a receive fail with ETIMEDOUT after this many seconds; 0 waits for ever.
    public func setReceiveTimeout(seconds: Int) throws(SystemError) {
        try set(SOL_SOCKET, SO_RCVTIMEO, timeval(tv_sec: seconds, tv_usec: 0))
    }

    /// Seconds after which a peer that answers nothing counts as gone.
    private static let deadPeerSeconds: CInt = 5

    /// Sends at once what is to be sent, and notices a peer that is gone without a word.
    func prepareTCP() throws(SystemError) {
        let tcp = CInt(IPPROTO_TCP)
        try set(tcp, TCP_NODELAY, CInt(1))
        // An idle connection is probed each second; unanswered data or probes break it.
        try set(SOL_SOCKET, SO_KEEPALIVE, CInt(1))
        try set(tcp, TCP_KEEPIDLE, CInt(1))
        try set(tcp, TCP_KEEPINTVL, CInt(1))
        try set(tcp, TCP_KEEPCNT, StreamSocket.deadPeerSeconds)
        try set(tcp, TCP_USER_TIMEOUT, StreamSocket.deadPeerSeconds * 1000)
    }

    func set<Value: BitwiseCopyable>(_ level: CInt, _ option: CInt, _ value: Value) throws(SystemError) {
        var value = value
        _ = try attempt("set option \(option) of the socket to \(peer)") { () throws(Errno) in
            try kernel(.setsockopt) {
                orErrno(setsockopt(descriptor.raw, level, option, &value, socklen_t(MemoryLayout<Value>.size)))
            }
        }
    }
}
