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
    ///
    /// `@unchecked Sendable`: the messages are its own, and whoever has it has it alone.
    public struct EventBuffer: ~Copyable, @unchecked Sendable {
        /// Bytes that an event takes.
        public static let eventBytes = MemoryLayout<uffd_msg>.stride

        private let messages: UnsafeMutableBufferPointer<uffd_msg>
        /// What the messages are a piece of; nil where they are this buffer's own.
        private let memory: SharedMemory?
        /// Events in the buffer.
        public fileprivate(set) var count = 0

        /// Makes room for `capacity` events.
        public init(capacity: Int) {
            messages = .allocate(capacity: capacity)
            messages.initialize(repeating: uffd_msg())
            memory = nil
        }

        /// Makes a buffer in a piece of memory, which holds what was read into it before and not cleared.
        ///
        /// The kernel takes an event from the userfaultfd and writes it here in one system call, which no signal ends half
        /// way: what was read and not cleared stands here, also when the process that read it was killed.
        ///
        /// - Parameter offset: where the piece begins, in bytes; a multiple of 64.
        public init(capacity: Int, in memory: SharedMemory, at offset: Int) {
            let first = memory.piece(at: offset, byteCount: capacity * EventBuffer.eventBytes)
            messages = UnsafeMutableBufferPointer(
                start: first.bindMemory(to: uffd_msg.self, capacity: capacity),
                count: capacity
            )
            self.memory = memory
            // No event has the number 0.
            count = messages.prefix { $0.event != 0 }.count
        }

        deinit {
            if memory == nil { messages.deallocate() }
        }

        /// Forgets the events: all of them have been seen to.
        public mutating func clear() {
            // The last first: whoever finds what is left finds the beginning.
            for index in (0..<count).reversed() { messages[index].event = 0 }
            count = 0
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
