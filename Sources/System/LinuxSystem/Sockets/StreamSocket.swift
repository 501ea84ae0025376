import CShims
import Glibc
import SystemPackage

/// A connected, blocking stream socket, TCP or Unix.
///
/// Any thread may send and any thread may receive, but only one of each at a time.
package struct StreamSocket: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// The name of the other end, for messages.
    package let peer: String
    /// Where an accepted connection comes from; unknown for a connection that this process has made.
    package let origin: PeerOrigin

    init(_ descriptor: consuming OwnedDescriptor, peer: String, origin: PeerOrigin = .unknown) {
        self.descriptor = descriptor
        self.peer = peer
        self.origin = origin
    }

    /// Seconds for a connection attempt that is followed by others.
    ///
    /// The kernel repeats its own request after 1, 3 and 7 s. If the peer has just come back, a new attempt reaches the
    /// peer sooner than these repetitions.
    package static let shortTimeout = 2

    /// Connects to an address; if a host has several, to the first one that accepts the connection.
    ///
    /// A TCP attempt times out after `timeout` seconds, which all addresses of the host share.
    package init(connectingTo address: SocketAddress, timeout: Int = 10) throws(SystemError) {
        self = try StreamSocket.connect(to: address, timeout: timeout)
    }

    private static func connect(to address: SocketAddress, timeout: Int) throws(SystemError) -> StreamSocket {
        switch address {
        case .unix(let path):
            let place = try SocketPlace(path)
            let descriptor = try Listener.socket(AF_UNIX)
            let raw = descriptor.raw
            _ = try attempt("connect to \(address)", advice: "check that a process listens there") { () throws(Errno) in
                try kernel(.connect) { shim_connect_unix(raw, place.path) }
            }
            return StreamSocket(descriptor, peer: address.description)
        case .tcp(let host, let port):
            // The kernel would connect to this host.
            guard !address.isEveryAddress else {
                throw SystemError(
                    "connect to \(address)",
                    .invalidArgument,
                    advice: "this is every address of a host; name the host to connect to: tcp:HOST:\(port)"
                )
            }
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
        _ = try attempt("connect to \(peer)", adviceOn: SystemError.advice(onConnection:)) { () throws(Errno) in
            do throws(Errno) {
                return try kernel(.connect) { orErrno(Glibc.connect(raw, name, length)) }
            } catch .nowInProgress {
                throw .timedOut  // A blocking connect(2) reports in this way that SO_SNDTIMEO has passed.
            }
        }
        try set(SOL_SOCKET, SO_SNDTIMEO, timeval(tv_sec: 0, tv_usec: 0))
        try prepareTCP()
    }

    /// Creates two Unix sockets that are connected to each other.
    package static func pair() throws(SystemError) -> (SharedSocket, SharedSocket) {
        var ends: [CInt] = [-1, -1]
        let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        _ = try attempt("make two sockets", advice: "raise `ulimit -n`") { () throws(Errno) in
            try kernel(.socketpair) { orErrno(socketpair(AF_UNIX, type, 0, &ends)) }
        }
        let sockets = ends.map { SharedSocket(StreamSocket(OwnedDescriptor($0), peer: "the other end")) }
        return (sockets[0], sockets[1])
    }

    /// Sends all bytes, and waits for room in the socket's buffer as often as needed.
    ///
    /// If the peer has closed the connection, the call throws EPIPE and raises no SIGPIPE. After an error, a part of
    /// the bytes may have been sent.
    @inline(__always)
    package func send(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
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

    /// Sends all bytes, and waits for room in the socket's buffer as often as needed.
    package func send(_ bytes: [UInt8]) throws(SystemError) {
        do {
            try bytes.withUnsafeBytes { try send($0) }
        } catch let error as SystemError {
            throw error
        } catch {
            // Not reached: the compiler demands this clause, since it infers no typed error for the closure.
            preconditionFailure("send throws SystemError only")
        }
    }

    /// Sends as many bytes as the socket's buffer has room for, without waiting.
    ///
    /// - Returns: bytes sent; 0 if the buffer has no room.
    package func sendNow(_ bytes: UnsafeRawBufferPointer) throws(SystemError) -> Int {
        do throws(Errno) {
            return try kernel(.send) {
                orErrno(Glibc.send(descriptor.raw, bytes.baseAddress, bytes.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT)))
            }
        } catch .resourceTemporarilyUnavailable {
            return 0
        } catch {
            throw SystemError("send to \(peer)", error)
        }
    }

    /// Sends all gathered pieces with as few calls as the kernel allows, and empties the buffer.
    @inline(__always)
    package func send(_ gathered: inout GatherBuffer) throws(SystemError) {
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

    /// Receives bytes that have arrived, and waits for at least one.
    ///
    /// - Returns: bytes received; 0 if the peer has closed its side.
    @inline(__always)
    package func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        guard let received = try receiveInTime(into: buffer) else {
            throw SystemError("receive from \(peer)", .timedOut)
        }
        return received
    }

    /// Receives bytes that have arrived, and waits for at least one for as long as ``setReceiveTimeout(_:)`` allows.
    ///
    /// - Returns: bytes received; 0 if the peer has closed its side, nil if nothing has arrived in time.
    @inline(__always)
    package func receiveInTime(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        do throws(Errno) {
            return try kernel(.recv) { orErrno(recv(descriptor.raw, buffer.baseAddress, buffer.count, 0)) }
        } catch .resourceTemporarilyUnavailable {
            // A blocking socket reports EAGAIN only if a receive timeout was set and has passed.
            return nil
        } catch {
            throw SystemError("receive from \(peer)", error)
        }
    }

    /// Receives as ``receiveInTime(into:)`` does, and polls before the thread sleeps for as long as `budget` says.
    @inline(__always)
    package func receiveInTime(
        into buffer: UnsafeMutableRawBufferPointer,
        polling budget: inout PollBudget
    ) throws(SystemError) -> Int? {
        try budget.wait(for: .event) { (nanoseconds) throws(SystemError) in
            if nanoseconds > 0, try !hasBytes(within: nanoseconds) { return nil }
            return try receiveNow(into: buffer)
        } orSleep: { _ throws(SystemError) in
            try receiveInTime(into: buffer)
        }
    }

    /// Waits until bytes can be received or the peer has closed its side.
    ///
    /// - Returns: whether that has happened within the time.
    private func hasBytes(within nanoseconds: UInt64) throws(SystemError) -> Bool {
        var arrival = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return try attempt("receive from \(peer)") { () throws(Errno) in
            try kernel(.poll) { shim_ppoll(&arrival, 1, nanoseconds) } > 0
        }
    }

    /// Whether the peer has closed its end of a Unix socket.
    package var hasHungUp: Bool {
        var watched = pollfd(fd: descriptor.raw, events: 0, revents: 0)
        // poll(2) fails here only for want of kernel memory; the peer then counts as present.
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, 0)) }) == 1
    }

    /// Waits until bytes can be received, the peer has closed its side, or the flag is raised, and polls before the
    /// thread sleeps for as long as `budget` says.
    package func waitToReceive(
        or flag: borrowing EventDescriptor,
        polling budget: inout PollBudget
    ) throws(SystemError) {
        _ = try budget.wait(for: .answer) { (nanoseconds) throws(SystemError) in
            try isReady(or: flag, within: nanoseconds) ? () : nil
        } orSleep: { _ throws(SystemError) in
            try isReady(or: flag, within: nil) ? () : nil
        }
    }

    private func isReady(or flag: borrowing EventDescriptor, within nanoseconds: UInt64?) throws(SystemError) -> Bool {
        var descriptors = (
            pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        )
        return try attempt("wait for \(peer)") { () throws(Errno) in
            try kernel(.poll) {
                withUnsafeMutableBytes(of: &descriptors) { bytes in
                    let descriptors = bytes.assumingMemoryBound(to: pollfd.self).baseAddress
                    guard let nanoseconds else { return orErrno(poll(descriptors, 2, -1)) }
                    return shim_ppoll(descriptors, 2, nanoseconds)
                }
            }
        } > 0
    }

    /// What a wait for bytes ended with.
    package enum Arrival: Sendable {
        /// Bytes can be received, or the peer has closed its side.
        case data
        /// The flag is raised.
        case flag
        /// The time is over.
        case time
    }

    /// Waits until bytes can be received, the peer has closed its side, the flag is raised, or until `deadline`, in
    /// nanoseconds of ``MonotonicClock``.
    package func waitToReceive(
        or flag: borrowing EventDescriptor,
        before deadline: UInt64
    ) throws(SystemError) -> Arrival {
        var descriptors = (
            pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        )
        let now = MonotonicClock.now()
        let milliseconds = deadline > now ? CInt(clamping: (deadline - now - 1) / 1_000_000 + 1) : 0
        _ = try attempt("wait for \(peer)") { () throws(Errno) in
            try kernel(.poll) {
                withUnsafeMutableBytes(of: &descriptors) { bytes in
                    orErrno(poll(bytes.assumingMemoryBound(to: pollfd.self).baseAddress, 2, milliseconds))
                }
            }
        }
        if descriptors.0.revents != 0 { return .flag }
        return descriptors.1.revents != 0 ? .data : .time
    }

    /// Receives as many bytes as the buffer holds.
    ///
    /// - Returns: bytes received; fewer than the buffer holds if the peer closed its side first.
    package func receive(exactly buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        var filled = 0
        while filled < buffer.count {
            let received = try receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            if received == 0 { break }
            filled += received
        }
        return filled
    }

    /// Receives bytes that have arrived, without waiting.
    ///
    /// - Returns: bytes received; 0 if the peer has closed its side, nil if nothing has arrived.
    package func receiveNow(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
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

    /// Waits until bytes have arrived or the peer has closed its side, or until `deadline`.
    ///
    /// The deadline is in nanoseconds of ``MonotonicClock``.
    ///
    /// - Returns: whether there is something to receive.
    package func waitToReceive(before deadline: UInt64) throws(SystemError) -> Bool {
        let now = MonotonicClock.now()
        var arrival = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        let milliseconds = deadline > now ? CInt(clamping: (deadline - now) / 1_000_000 + 1) : 0
        return try attempt("receive from \(peer)") { () throws(Errno) in
            try kernel(.poll) { orErrno(poll(&arrival, 1, milliseconds)) } > 0
        }
    }

    /// Receives as many bytes as the buffer holds, all of them before `deadline`.
    ///
    /// The deadline is in nanoseconds of ``MonotonicClock``. A peer that sends slowly does not extend the deadline.
    ///
    /// - Returns: bytes received; fewer than the buffer holds if the peer closed its side first.
    package func receive(
        exactly buffer: UnsafeMutableRawBufferPointer,
        before deadline: UInt64
    ) throws(SystemError) -> Int {
        var filled = 0
        while filled < buffer.count {
            guard try waitToReceive(before: deadline) else { throw SystemError("receive from \(peer)", .timedOut) }
            let received = try receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            if received == 0 { break }
            filled += received
        }
        return filled
    }

    /// Sends all bytes before `deadline`.
    ///
    /// The deadline is in nanoseconds of ``MonotonicClock``. A peer that reads slowly does not extend the deadline.
    package func send(_ bytes: [UInt8], before deadline: UInt64) throws(SystemError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let now = MonotonicClock.now()
            var room = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
            let milliseconds = deadline > now ? CInt(clamping: (deadline - now) / 1_000_000 + 1) : 0
            let ready = try attempt("send to \(peer)") { () throws(Errno) in
                try kernel(.poll) { orErrno(poll(&room, 1, milliseconds)) }
            }
            guard ready > 0 else { throw SystemError("send to \(peer)", .timedOut) }
            do throws(Errno) {
                let sent = try kernel(.send) {
                    rest.withUnsafeBytes {
                        orErrno(Glibc.send(descriptor.raw, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT)))
                    }
                }
                rest = rest.dropFirst(sent)
            } catch .resourceTemporarilyUnavailable {
                continue
            } catch {
                throw SystemError("send to \(peer)", error)
            }
        }
    }

    /// Shuts both directions down: threads that are blocked in a call on this socket return.
    package func shutdown() {
        // ENOTCONN only means that the peer was faster.
        _ = try? kernel(.shutdown) { orErrno(Glibc.shutdown(descriptor.raw, CInt(SHUT_RDWR))) }
    }

    /// Makes a receive throw ETIMEDOUT after this many seconds; 0 removes the limit.
    package func setReceiveTimeout(seconds: Int) throws(SystemError) {
        try setReceiveTimeout(.seconds(seconds))
    }

    /// Makes a receive wait for at most this long; zero removes the limit.
    package func setReceiveTimeout(_ time: Duration) throws(SystemError) {
        let (seconds, attoseconds) = time.components
        try set(
            SOL_SOCKET,
            SO_RCVTIMEO,
            timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
        )
    }

    /// Bytes that were sent and that the peer's kernel has not acknowledged; nil if the socket cannot tell.
    package var unconfirmedBytes: Int? {
        var count: CInt = 0
        let result = withUnsafeMutablePointer(to: &count) {
            // tcp(7): SIOCOUTQ has the value of TIOCOUTQ.
            shim_ioctl(descriptor.raw, UInt(TIOCOUTQ), UInt(bitPattern: $0))
        }
        return result < 0 ? nil : Int(count)
    }

    /// Seconds after which a peer that answers nothing counts as gone, unless ``tolerateSilence(of:)`` allows more.
    private static let deadPeerSeconds: CInt = 5

    /// Lets the peer answer nothing for this long before the kernel breaks the connection.
    ///
    /// A time of up to 5 s, the default, changes nothing. A Unix socket is never broken for silence.
    package func tolerateSilence(of time: Duration) throws(SystemError) {
        guard isTCP, time > .seconds(StreamSocket.deadPeerSeconds) else { return }
        // The kernel counts at most 127 probes. If both options are set, TCP_USER_TIMEOUT decides.
        let milliseconds = CInt(clamping: Int64((time / .milliseconds(1)).rounded(.up)))
        try set(CInt(IPPROTO_TCP), TCP_KEEPCNT, min(127, milliseconds / 1000 + 1))
        try set(CInt(IPPROTO_TCP), TCP_USER_TIMEOUT, milliseconds)
    }

    /// The round trip as the kernel measures it, beginning with the connection's setup; nil for a Unix socket.
    ///
    /// A relay between the hosts answers for itself.
    package var roundTrip: Duration? {
        // tcp(7): TCP_INFO. The kernel fills as much of the structure as there is room for.
        var (info, length) = (tcp_info(), socklen_t(MemoryLayout<tcp_info>.size))
        guard getsockopt(descriptor.raw, CInt(IPPROTO_TCP), TCP_INFO, &info, &length) == 0 else { return nil }
        return .microseconds(Int64(info.tcpi_rtt))
    }

    private var isTCP: Bool {
        var (domain, length) = (CInt(0), socklen_t(MemoryLayout<CInt>.size))
        return getsockopt(descriptor.raw, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain != AF_UNIX
    }

    /// Turns off the delay of small sends, and makes the kernel notice a peer that is gone without having said so.
    func prepareTCP() throws(SystemError) {
        let tcp = CInt(IPPROTO_TCP)
        try set(tcp, TCP_NODELAY, CInt(1))
        // An idle connection is probed each second. Data or probes without an answer break it.
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
