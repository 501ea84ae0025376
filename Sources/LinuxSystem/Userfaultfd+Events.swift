import CShims
import Glibc
import SystemPackage

extension Userfaultfd {
    /// Something that happened to registered memory.
    public enum Event: Hashable, Sendable {
        /// A thread waits for the page that holds this address.
        ///
        /// `thread` is the thread's number as its own process sees it (feat.ptid), or 0 where the userfaultfd was opened
        /// without ``Features/threadID``.
        case fault(address: UInt64, thread: UInt32)
        /// The pages from `start` up to `end` were dropped and read as zeros from now on.
        case removed(start: UInt64, end: UInt64)
        /// An event this module was not asked to handle, by the kernel's number.
        case other(UInt8)
    }

    /// A buffer that events are read into: made once, used again and again.
    public struct EventBuffer: ~Copyable {
        private let messages: UnsafeMutableBufferPointer<uffd_msg>
        /// Events in the buffer.
        public fileprivate(set) var count = 0

        /// Makes room for `capacity` events.
        public init(capacity: Int) {
            messages = .allocate(capacity: capacity)
            messages.initialize(repeating: uffd_msg())
        }

        deinit {
            messages.deallocate()
        }

        /// The event at `index`, which is below ``count``.
        public subscript(index: Int) -> Event {
            precondition(index < count)
            let message = messages[index]
            switch CInt(message.event) {
            case CInt(UFFD_EVENT_PAGEFAULT):
                return .fault(address: message.arg.pagefault.address, thread: message.arg.pagefault.feat.ptid)
            case CInt(UFFD_EVENT_REMOVE):
                return .removed(start: message.arg.remove.start, end: message.arg.remove.end)
            default:
                return .other(message.event)
            }
        }

        fileprivate mutating func fill(from descriptor: CInt) throws(Errno) {
            count = 0
            let bytes = UnsafeMutableRawBufferPointer(messages)
            let received = try kernel(.read) { orErrno(Glibc.read(descriptor, bytes.baseAddress, bytes.count)) }
            count = received / MemoryLayout<uffd_msg>.stride
        }
    }

    /// Reads the events that are waiting. When there are none, the buffer is empty, or the call waits if the userfaultfd
    /// blocks.
    @inline(__always)
    public func read(into buffer: inout EventBuffer) throws(SystemError) {
        do throws(Errno) {
            try buffer.fill(from: descriptor.raw)
        } catch .resourceTemporarilyUnavailable {
            return
        } catch {
            throw SystemError("read events from a userfaultfd", error)
        }
    }

    /// What ended a wait.
    public enum Wake: Hashable, Sendable {
        /// Events can be read.
        case events
        /// The flag was raised.
        case flag
        /// The memory's process is gone.
        case hangUp
    }

    /// Waits until events can be read or the flag is raised; the flag goes first.
    @inline(__always)
    public func wait(or flag: borrowing EventDescriptor) throws(SystemError) -> Wake {
        var descriptors = (
            pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        )
        do throws(Errno) {
            _ = try kernel(.poll) {
                withUnsafeMutableBytes(of: &descriptors) { bytes in
                    orErrno(poll(bytes.assumingMemoryBound(to: pollfd.self).baseAddress, 2, -1))
                }
            }
        } catch {
            throw SystemError("wait for events of a userfaultfd", error)
        }
        if descriptors.0.revents != 0 { return .flag }
        return descriptors.1.revents & Int16(POLLIN) != 0 ? .events : .hangUp
    }
}

/// Waits for a userfaultfd, a flag and, while one is watched, a socket: made once, used again and again (poll).
public struct FaultWait: ~Copyable {
    private var descriptors: (flag: pollfd, userfaultfd: pollfd, socket: pollfd)

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
    public init(for userfaultfd: borrowing Userfaultfd, or flag: borrowing EventDescriptor) {
        let input = Int16(POLLIN)
        descriptors = (
            pollfd(fd: flag.descriptor.raw, events: input, revents: 0),
            pollfd(fd: userfaultfd.descriptor.raw, events: input, revents: 0),
            // Nothing that is negative is looked at.
            pollfd(fd: -1, events: input, revents: 0)
        )
    }

    /// From now on waits for a socket too, which outlives that.
    public mutating func watch(_ socket: borrowing StreamSocket) {
        descriptors.socket.fd = socket.descriptor.raw
    }

    /// From now on waits for no socket.
    public mutating func watchNoSocket() {
        descriptors.socket.fd = -1
    }

    /// Waits until there is something to do.
    @inline(__always)
    public mutating func wait() throws(SystemError) -> Ready {
        do throws(Errno) {
            _ = try kernel(.poll) {
                withUnsafeMutableBytes(of: &descriptors) { bytes in
                    orErrno(poll(bytes.assumingMemoryBound(to: pollfd.self).baseAddress, 3, -1))
                }
            }
        } catch {
            throw SystemError("wait for events of a userfaultfd", error)
        }
        var ready: Ready = []
        if descriptors.flag.revents != 0 { ready.insert(.flag) }
        if descriptors.socket.revents != 0 { ready.insert(.socket) }
        if descriptors.userfaultfd.revents & Int16(POLLIN) != 0 {
            ready.insert(.events)
        } else if descriptors.userfaultfd.revents != 0 {
            ready.insert(.hangUp)
        }
        return ready
    }
}
