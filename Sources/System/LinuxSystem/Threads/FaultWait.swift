import CShims
import Glibc
import SystemPackage

/// Waits for a userfaultfd, for flags and, while one is watched, for a socket (epoll).
///
/// A wait is created once and used again and again. If several threads wait for the same userfaultfd, an event wakes
/// one of them.
package struct FaultWait: ~Copyable {
    private let epoll: OwnedDescriptor
    private var events = (epoll_event(), epoll_event(), epoll_event(), epoll_event())
    private var socket: SharedSocket?
    private var budget: PollBudget
    private var looks: UInt8 = 0

    /// While a thread polls, one look in so many is for everything that is watched, whatever the others find.
    private static let looksBetween: UInt8 = 4

    /// What a wait has found ready.
    package struct Ready: OptionSet, Sendable {
        /// The set as bits.
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// The flag is raised.
        package static let flag = Ready(rawValue: 1)
        /// Events can be read from the userfaultfd, or from where another thread has left them.
        package static let events = Ready(rawValue: 2)
        /// The socket has bytes, or its peer has closed it.
        package static let socket = Ready(rawValue: 4)
        /// The process whose memory is registered is gone.
        package static let hangUp = Ready(rawValue: 8)
    }

    /// Creates a wait for a userfaultfd and a flag, both of which must outlive it.
    ///
    /// - Parameters:
    ///   - userfaultfd: the userfaultfd.
    ///   - flag: the flag.
    ///   - polling: the longest time to poll before the thread sleeps; zero to never poll.
    package init(
        for userfaultfd: borrowing Userfaultfd,
        or flag: borrowing EventDescriptor,
        polling: Duration
    ) throws(SystemError) {
        budget = PollBudget(limit: polling)
        let epoll = try attempt("make an epoll instance") { () throws(Errno) in
            OwnedDescriptor(try kernel(.epollCreate) { orErrno(epoll_create1(CInt(EPOLL_CLOEXEC))) })
        }
        try FaultWait.control(epoll, EPOLL_CTL_ADD, flag.descriptor.raw, .flag)
        // 1 << 28 is EPOLLEXCLUSIVE, which the imported enumeration lacks.
        try FaultWait.control(epoll, EPOLL_CTL_ADD, userfaultfd.descriptor.raw, .events, flags: 1 << 28)
        self.epoll = epoll
    }

    private static func control(
        _ epoll: borrowing OwnedDescriptor,
        _ operation: CInt,
        _ descriptor: CInt,
        _ ready: Ready,
        flags: UInt32 = 0
    ) throws(SystemError) {
        var event = epoll_event(events: EPOLLIN.rawValue | flags, data: epoll_data_t(u32: UInt32(ready.rawValue)))
        let raw = epoll.raw
        _ = try attempt("wait for a userfaultfd") { () throws(Errno) in
            try kernel(.epollControl) { orErrno(epoll_ctl(raw, operation, descriptor, &event)) }
        }
    }

    /// Adds a flag that counts as ``Ready/events``: another thread raises it for events that it has read and left
    /// elsewhere.
    package mutating func watch(_ flag: borrowing EventDescriptor) throws(SystemError) {
        try FaultWait.control(epoll, EPOLL_CTL_ADD, flag.descriptor.raw, .events)
    }

    /// Watches a socket, in place of the one that was watched before.
    package mutating func watch(_ socket: SharedSocket) throws(SystemError) {
        try watchNoSocket()
        try FaultWait.control(epoll, EPOLL_CTL_ADD, socket.stream.descriptor.raw, .socket)
        self.socket = socket
    }

    /// Stops watching the socket.
    package mutating func watchNoSocket() throws(SystemError) {
        guard let socket else { return }
        // The socket is still open, because this value holds it.
        try FaultWait.control(epoll, EPOLL_CTL_DEL, socket.stream.descriptor.raw, .socket)
        self.socket = nil
    }

    /// Waits until something is ready or the time has passed.
    ///
    /// - Parameters:
    ///   - milliseconds: the longest time to wait, after which nothing is ready; nil waits without limit.
    ///   - isAnswerDue: whether the peer owes this thread an answer. Such waits are much shorter than others, so that the
    ///     time to poll in them is learnt separately.
    ///   - polls: whether the thread may poll before it sleeps. A thread that polls does not count as one that waits:
    ///     an event then wakes a sleeping thread too.
    ///   - take: takes an answer from the watched socket, or an event, without waiting, and says what was found;
    ///     nil if nothing can be taken this way. Most looks are such attempts, since each answer and each event then
    ///     needs one system call less.
    @inline(__always)
    package mutating func wait(
        milliseconds: Int32? = nil,
        isAnswerDue: Bool,
        polls: Bool,
        take: () throws(SystemError) -> Ready? = { nil }
    ) throws(SystemError) -> Ready {
        let longest = milliseconds.map { UInt64(max(0, $0)) * 1_000_000 }
        guard polls else { return try look(nanoseconds: longest) }
        // A copy, since the closures use this value.
        var budget = budget
        defer { self.budget = budget }
        let found = try budget.wait(for: isAnswerDue ? .answer : .event, within: longest) {
            (nanoseconds) throws(SystemError) -> Ready? in
            looks &+= 1
            if nanoseconds == 0, looks % FaultWait.looksBetween != 0, let taken = try take() {
                return taken.isEmpty ? nil : taken
            }
            let ready = try look(nanoseconds: nanoseconds)
            return ready.isEmpty ? nil : ready
        } orSleep: { (nanoseconds) throws(SystemError) in
            let ready = try look(nanoseconds: nanoseconds)
            return ready.isEmpty ? nil : ready
        }
        return found ?? []
    }

    @inline(__always)
    private mutating func look(nanoseconds: UInt64?) throws(SystemError) -> Ready {
        var timeout = timespec(nanoseconds: nanoseconds ?? 0)
        var ready: Ready = []
        do throws(Errno) {
            try withUnsafeMutableBytes(of: &events) { (bytes) throws(Errno) in
                let events = bytes.assumingMemoryBound(to: epoll_event.self)
                let count = try kernel(.epollWait) {
                    let most = CInt(events.count)
                    guard nanoseconds != nil else {
                        return orErrno(epoll_wait(epoll.raw, events.baseAddress, most, -1))
                    }
                    return orErrno(epoll_pwait2(epoll.raw, events.baseAddress, most, &timeout, nil))
                }
                for event in events.prefix(Int(count)) {
                    let which = Ready(rawValue: UInt8(event.data.u32))
                    let isGone = which == .events && event.events & EPOLLIN.rawValue == 0
                    ready.insert(isGone ? .hangUp : which)
                }
            }
        } catch {
            throw SystemError("wait for events of a userfaultfd", error)
        }
        return ready
    }
}
