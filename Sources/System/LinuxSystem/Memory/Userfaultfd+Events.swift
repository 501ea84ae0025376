import CShims
import Glibc
import SystemPackage

extension Userfaultfd {
    /// Why an access to a page raises a fault.
    package enum FaultKind: Hashable, Sendable {
        /// The page is absent.
        case missing
        /// The page is in its memory file, and is not mapped.
        case minor
        /// The page is present, and its process has write-protected it (UFFDIO_WRITEPROTECT).
        case writeProtected

        /// Reads the flags of a fault (UFFD_PAGEFAULT_FLAG_WP is bit 1, UFFD_PAGEFAULT_FLAG_MINOR is bit 2).
        fileprivate init(flags: UInt64) {
            self = flags & 1 << 2 != 0 ? .minor : flags & 1 << 1 != 0 ? .writeProtected : .missing
        }
    }

    /// An event in registered memory.
    package enum Event: Hashable, Sendable {
        /// A thread waits for the page that holds this address.
        ///
        /// `thread` is the thread's number as its own process sees it (feat.ptid). It is 0 if the userfaultfd was
        /// opened without ``Features/threadID``.
        case fault(address: UInt64, thread: UInt32, kind: FaultKind = .missing)
        /// The process drops the pages from `start` up to `end` (madvise).
        ///
        /// Private pages read as zeros afterwards. A memory file keeps its pages after MADV_DONTNEED and loses them by
        /// MADV_REMOVE; the event is the same.
        case removed(start: UInt64, end: UInt64)
        /// The process unmaps the addresses from `start` up to `end`, or maps something else there.
        case unmapped(start: UInt64, end: UInt64)
        /// The process has moved a mapping (mremap), which stays registered at its new addresses.
        case moved(from: UInt64, to: UInt64, byteCount: UInt64)
        /// The process has forked; ``EventBuffer/takeChild(at:)`` gives the userfaultfd of the child's memory.
        case forked
        /// An event that this module does not handle, by the kernel's number.
        case other(UInt8)
    }

    /// A buffer for events, created once and used again and again.
    ///
    /// `@unchecked Sendable`: the messages belong to the buffer, and the buffer has one owner at a time.
    package struct EventBuffer: ~Copyable, @unchecked Sendable {
        /// Bytes of one event.
        package static let eventBytes = MemoryLayout<uffd_msg>.stride

        private let messages: UnsafeMutableBufferPointer<uffd_msg>
        /// The memory that the messages are a piece of; nil if the buffer has allocated them.
        private let memory: SharedMemory?
        /// The number of events in the buffer.
        package fileprivate(set) var count = 0

        /// Allocates room for `capacity` events.
        package init(capacity: Int) {
            messages = .allocate(capacity: capacity)
            messages.initialize(repeating: uffd_msg())
            memory = nil
        }

        /// Creates a buffer in a piece of memory, with the events there that were read and not cleared.
        ///
        /// The kernel takes an event from the userfaultfd and writes it here in one system call, which no signal
        /// interrupts halfway. So an event that was read and not cleared is here even if the process that read it was
        /// killed.
        ///
        /// - Parameters:
        ///   - capacity: the most events that the buffer holds.
        ///   - memory: memory that may outlive this process.
        ///   - offset: where the piece begins, in bytes; a multiple of 64.
        package init(capacity: Int, in memory: SharedMemory, at offset: Int) {
            let first = memory.piece(at: offset, byteCount: capacity * EventBuffer.eventBytes)
            messages = UnsafeMutableBufferPointer(
                start: first.bindMemory(to: uffd_msg.self, capacity: capacity),
                count: capacity
            )
            self.memory = memory
            // No event has the number 0, which therefore marks the end.
            count = messages.prefix { $0.event != 0 }.count
        }

        deinit {
            if memory == nil { messages.deallocate() }
        }

        /// Removes the events, all of which have been handled.
        package mutating func clear() {
            // From last to first: if the process is killed in this loop, the events that remain are the first ones.
            for index in (0..<count).reversed() { messages[index].event = 0 }
            count = 0
        }

        /// The event at `index`, which must be less than ``count``.
        package subscript(index: Int) -> Event {
            precondition(index < count)
            let message = messages[index]
            switch CInt(message.event) {
            case CInt(UFFD_EVENT_PAGEFAULT):
                let fault = message.arg.pagefault
                return .fault(
                    address: fault.address,
                    thread: fault.feat.ptid,
                    kind: FaultKind(flags: fault.flags)
                )
            case CInt(UFFD_EVENT_REMOVE):
                return .removed(start: message.arg.remove.start, end: message.arg.remove.end)
            case CInt(UFFD_EVENT_UNMAP):
                return .unmapped(start: message.arg.remove.start, end: message.arg.remove.end)
            case CInt(UFFD_EVENT_REMAP):
                let remap = message.arg.remap
                return .moved(from: remap.from, to: remap.to, byteCount: remap.len)
            case CInt(UFFD_EVENT_FORK): return .forked
            default:
                return .other(message.event)
            }
        }

        /// Takes the userfaultfd of a child's memory, which the kernel has opened in this process; once for each event.
        ///
        /// - Parameter index: the index of an event ``Event/forked`` that this process has read.
        package func takeChild(at index: Int) -> Userfaultfd {
            precondition(self[index] == .forked)
            let raw = CInt(bitPattern: messages[index].arg.fork.ufd)
            // The kernel copies the flags with which the parent's process opened its own userfaultfd. Neither call fails
            // for an open descriptor.
            _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
            _ = shim_set_nonblocking(raw)
            return Userfaultfd(adopting: OwnedDescriptor(raw))
        }

        fileprivate mutating func fill(from descriptor: CInt) throws(Errno) {
            count = 0
            let bytes = UnsafeMutableRawBufferPointer(messages)
            let received = try kernel(.read) { orErrno(Glibc.read(descriptor, bytes.baseAddress, bytes.count)) }
            count = received / MemoryLayout<uffd_msg>.stride
        }
    }

    /// Reads the events that are waiting.
    ///
    /// If no event waits, the buffer is left empty; on a blocking userfaultfd the call waits for one.
    @inline(__always)
    package func read(into buffer: inout EventBuffer) throws(SystemError) {
        do throws(Errno) {
            try buffer.fill(from: descriptor.raw)
        } catch .resourceTemporarilyUnavailable {
            return
        } catch {
            throw SystemError("read events from a userfaultfd", error)
        }
    }

    /// What ended a wait.
    package enum Wake: Hashable, Sendable {
        /// Events can be read.
        case events
        /// The flag was raised.
        case flag
        /// The process whose memory is registered is gone.
        case hangUp
    }

    /// Waits until events can be read or the flag is raised; if both are true, returns the flag.
    @inline(__always)
    package func wait(or flag: borrowing EventDescriptor) throws(SystemError) -> Wake {
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
