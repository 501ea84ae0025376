import CShims
import Glibc
import SystemPackage

/// Waits for a userfaultfd, a flag and, while one is watched, a socket: made once, used again and again (epoll).
///
/// Of several threads that wait for the same userfaultfd, an event wakes one.
public struct FaultWait: ~Copyable {
    private let epoll: OwnedDescriptor
    private var events = (epoll_event(), epoll_event(), epoll_event(), epoll_event())
    private var socket: SharedSocket?

    /// What can be gone on with.
    public struct Ready: OptionSet, Sendable {
        /// The bits.
        public let rawValue: UInt8

        /// A set of bits.
        public init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// The flag is raised.
        public static let flag = Ready(rawValue: 1)
        /// Events can be read.
        public static let events = Ready(rawValue: 2)
        /// The socket has bytes, or has ended.
        public static let socket = Ready(rawValue: 4)
        /// The memory's process is gone.
        public static let hangUp = Ready(rawValue: 8)
    }

    /// Makes a wait for a userfaultfd and a flag, which both outlive it.
    public init(for userfaultfd: borrowing Userfaultfd, or flag: borrowing EventDescriptor) throws(SystemError) {
        let epoll = try attempt("make an epoll instance") { () throws(Errno) in
            OwnedDescriptor(try kernel(.epollCreate) { orErrno(epoll_create1(CInt(EPOLL_CLOEXEC))) })
        }
        try FaultWait.control(epoll, EPOLL_CTL_ADD, flag.descriptor.raw, .flag)
        // EPOLLEXCLUSIVE, which is not in the enumeration that is imported.
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

    /// From now on waits for another flag too, which says that events were read and can be had elsewhere.
    public mutating func watch(_ flag: borrowing EventDescriptor) throws(SystemError) {
        try FaultWait.control(epoll, EPOLL_CTL_ADD, flag.descriptor.raw, .events)
    }

    /// From now on waits for a socket too.
    public mutating func watch(_ socket: SharedSocket) throws(SystemError) {
        try watchNoSocket()
        try FaultWait.control(epoll, EPOLL_CTL_ADD, socket.stream.descriptor.raw, .socket)
        self.socket = socket
    }

    /// From now on waits for no socket.
    public mutating func watchNoSocket() throws(SystemError) {
        guard let socket else { return }
        // It is open as long as it is kept here.
        try FaultWait.control(epoll, EPOLL_CTL_DEL, socket.stream.descriptor.raw, .socket)
        self.socket = nil
    }

    /// Waits until there is something to do.
    ///
    /// - Parameter milliseconds: how long at most, after which nothing is ready; -1 for without end.
    @inline(__always)
    public mutating func wait(milliseconds: Int32 = -1) throws(SystemError) -> Ready {
        var ready: Ready = []
        do throws(Errno) {
            try withUnsafeMutableBytes(of: &events) { (bytes) throws(Errno) in
                let events = bytes.assumingMemoryBound(to: epoll_event.self)
                let count = try kernel(.epollWait) {
                    orErrno(epoll_wait(epoll.raw, events.baseAddress, CInt(events.count), milliseconds))
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
