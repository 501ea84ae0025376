import Glibc
import Synchronization
import SystemPackage

/// Memory of other processes whose faults nobody serves, while its events are read.
///
/// A process that unmaps, moves or drops memory, or forks, waits until the event of that is read. The events of the
/// memory are read until ``end()``. The userfaultfds of forked children stay open until the memory of each child is gone:
/// its missing pages block their readers, and never read as zeros.
package final class UnservedMemory: Sendable {
    /// The number of children at which no event is read until one of them is gone.
    package static let mostChildren = 64
    private static let threads = ThreadGroup()
    /// Milliseconds between two looks at which children are gone, since the kernel does not report that.
    private static let interval = 1000

    private let readers: Readers

    /// Reads the events of memory.
    ///
    /// - Parameters:
    ///   - userfaultfd: the userfaultfd with which the memory is registered.
    ///   - ranges: the memory whose changes are noted as ``change``.
    package init(_ userfaultfd: consuming Userfaultfd, ranges: [PageRange] = []) throws(SystemError) {
        readers = try Readers(Watched(userfaultfd), ranges: ranges)
        try readers.start()
    }

    /// Makes an object for the children of a process whose own events somebody else reads.
    package init() throws(SystemError) {
        readers = try Readers(nil, ranges: [])
    }

    deinit { end() }

    /// Keeps the userfaultfd of a child until the child's memory is gone.
    package func keep(_ child: consuming Userfaultfd) {
        let child = Watched(child)
        readers.state.withLock { $0.children.append(child) }
        // Without a thread, the child waits if it changes this memory. The thread is started again with the next child.
        try? readers.start()
    }

    /// Whether the most children are kept that may be.
    package var isFull: Bool { readers.state.withLock { $0.isFull() } }

    /// The number of children that are kept.
    package var childCount: Int {
        readers.state.withLock { state in
            state.dropGone()
            return state.children.count
        }
    }

    /// Stops reading the events of the memory.
    ///
    /// When this returns, nothing more is read. Children are still kept.
    package func end() {
        readers.state.withLock { $0.memory = nil }
        readers.flag.raise()
    }

    /// What the process has done that makes its memory useless for pages that are still to arrive; nil if nothing.
    package var change: String? { readers.state.withLock(\.change) }

    /// A userfaultfd as an object, since an array takes no noncopyable values.
    private final class Watched: Sendable {
        let userfaultfd: Userfaultfd
        init(_ userfaultfd: consuming Userfaultfd) { self.userfaultfd = userfaultfd }
    }

    private struct State {
        var memory: Watched?
        var children: [Watched] = []
        var change: String?
        var isReading = false

        /// Closes the userfaultfds of children that have ended or run another program.
        mutating func dropGone() { children.removeAll { $0.userfaultfd.isMemoryGone } }

        mutating func isFull() -> Bool {
            guard children.count >= UnservedMemory.mostChildren else { return false }
            dropGone()
            return children.count >= UnservedMemory.mostChildren
        }
    }

    /// The userfaultfds, which the thread that reads them holds as well.
    private final class Readers: Sendable {
        let state: Mutex<State>
        /// Raised when the userfaultfds have changed.
        let flag: EventDescriptor
        private let ranges: [PageRange]

        init(_ memory: Watched?, ranges: [PageRange]) throws(SystemError) {
            flag = try EventDescriptor()
            state = Mutex(State(memory: memory))
            self.ranges = ranges
        }

        /// Starts the thread, unless it runs.
        func start() throws(SystemError) {
            flag.raise()
            let isReading = state.withLock { state in
                defer { state.isReading = true }
                return state.isReading
            }
            guard !isReading else { return }
            do throws(SystemError) {
                try UnservedMemory.threads.run("events", pace: .background) { self.run() }
            } catch {
                state.withLock { $0.isReading = false }
                throw error
            }
        }

        private func run() {
            var events = Userfaultfd.EventBuffer(capacity: 16)
            while let watched = next() {
                guard !wait(for: watched) else { continue }
                let hasFailed = state.withLock { state in
                    let ready = ([state.memory].compactMap(\.self) + state.children).filter { $0.userfaultfd.isReady }
                    // After `end`, the memory is not among them.
                    return ready.contains { !read($0, into: &events, &state) }
                }
                // The kernel gives a child's userfaultfd again when this process has a descriptor left.
                if hasFailed { _ = flag.wait(milliseconds: UnservedMemory.interval) }
            }
        }

        /// The userfaultfds to wait for; nil if the thread must end.
        private func next() -> [Watched]? {
            flag.clear()
            return state.withLock { state in
                state.dropGone()
                guard state.memory != nil || !state.children.isEmpty else {
                    state.isReading = false
                    return nil
                }
                guard !state.isFull() else { return [] }
                return [state.memory].compactMap(\.self) + state.children
            }
        }

        /// Waits until events can be read, or for the time after which gone children are looked for.
        ///
        /// - Returns: whether nothing can be read.
        private func wait(for watched: [Watched]) -> Bool {
            var descriptors = [pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0)]
            descriptors += watched.map { pollfd(fd: $0.userfaultfd.descriptor.raw, events: Int16(POLLIN), revents: 0) }
            // poll(2) fails here only for want of kernel memory; nothing is read then.
            let count = try? kernel(.poll) {
                orErrno(poll(&descriptors, nfds_t(descriptors.count), CInt(UnservedMemory.interval)))
            }
            return count ?? 0 <= 0 || !descriptors.dropFirst().contains { $0.revents & Int16(POLLIN) != 0 }
        }

        /// Reads the events of one userfaultfd.
        ///
        /// - Returns: false if the kernel refuses them.
        private func read(
            _ watched: Watched,
            into events: inout Userfaultfd.EventBuffer,
            _ state: inout State
        ) -> Bool {
            // Without memory or a descriptor for a child, the event stays in the kernel, and is read later.
            guard (try? watched.userfaultfd.read(into: &events)) != nil else { return false }
            for index in 0..<events.count {
                switch events[index] {
                case .forked: state.children.append(Watched(events.takeChild(at: index)))
                case .unmapped(let start, let end) where watched === state.memory && covers(start..<end):
                    state.change = state.change ?? "has unmapped memory that it has handed over"
                case .moved(let from, _, let byteCount)
                where watched === state.memory && covers(from..<from + byteCount):
                    state.change = state.change ?? "has moved memory that it has handed over (mremap)"
                // The next one who serves the memory wakes the readers, whose faults are then raised again.
                case .fault, .removed, .unmapped, .moved, .other: break
                }
            }
            return true
        }

        private func covers(_ addresses: Range<UInt64>) -> Bool {
            ranges.contains { addresses.overlaps($0.address..<$0.address + $0.byteCount) }
        }
    }
}

extension Userfaultfd {
    /// Whether the memory that is registered is gone: its process has ended, or runs another program (execve).
    package var isMemoryGone: Bool {
        // No process maps memory at this address, so the call places no page. The kernel looks for the memory first.
        map(1 << 46, byteCount: 4096) == .gone
    }

    /// Whether events can be read now.
    fileprivate var isReady: Bool {
        var descriptor = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory.
        return (try? kernel(.poll) { orErrno(poll(&descriptor, 1, 0)) }) == 1
            && descriptor.revents & Int16(POLLIN) != 0
    }
}
