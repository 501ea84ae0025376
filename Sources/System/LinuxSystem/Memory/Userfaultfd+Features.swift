extension Userfaultfd {
    /// Features of the kernel's userfaultfd, as `linux/userfaultfd.h` numbers them.
    package struct Features: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The kernel's bits.
        package let rawValue: UInt64

        package init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// A fork raises an event, and the child's memory gets a userfaultfd of its own.
        package static let eventFork = Features(rawValue: 1 << 1)
        /// mremap raises an event.
        package static let eventRemap = Features(rawValue: 1 << 2)
        /// MADV_DONTNEED, MADV_FREE and MADV_REMOVE raise an event.
        package static let eventRemove = Features(rawValue: 1 << 3)
        /// Missing pages of hugetlbfs raise faults.
        package static let missingHugetlbfs = Features(rawValue: 1 << 4)
        /// Missing pages of shared memory raise faults.
        package static let missingShmem = Features(rawValue: 1 << 5)
        /// munmap raises an event.
        package static let eventUnmap = Features(rawValue: 1 << 6)
        /// A fault raises SIGBUS instead of an event.
        package static let sigbus = Features(rawValue: 1 << 7)
        /// Fault events carry the thread that faulted.
        package static let threadID = Features(rawValue: 1 << 8)
        /// Minor faults of hugetlbfs can be registered for.
        package static let minorHugetlbfs = Features(rawValue: 1 << 9)
        /// Minor faults of shared memory can be registered for.
        package static let minorShmem = Features(rawValue: 1 << 10)
        /// Fault addresses are not rounded down to the page.
        package static let exactAddress = Features(rawValue: 1 << 11)
        /// Pages can be marked as lost (UFFDIO_POISON).
        package static let poison = Features(rawValue: 1 << 14)
        /// Write protection works without a handler.
        package static let writeProtectAsync = Features(rawValue: 1 << 15)
        /// Pages can be moved instead of copied (UFFDIO_MOVE).
        package static let move = Features(rawValue: 1 << 16)

        /// The features whose events a process waits for until they are read.
        package static let events: Features = [.eventFork, .eventRemap, .eventRemove, .eventUnmap]

        /// The features, with the names that `pageferry probe` prints for them.
        package static let names: [(feature: Features, name: String)] = [
            (.eventFork, "EVENT_FORK"), (.eventRemap, "EVENT_REMAP"), (.eventRemove, "EVENT_REMOVE"),
            (.missingHugetlbfs, "MISSING_HUGETLBFS"), (.missingShmem, "MISSING_SHMEM"), (.eventUnmap, "EVENT_UNMAP"),
            (.sigbus, "SIGBUS"), (.threadID, "THREAD_ID"), (.minorHugetlbfs, "MINOR_HUGETLBFS"),
            (.minorShmem, "MINOR_SHMEM"), (.exactAddress, "EXACT_ADDRESS"), (.poison, "POISON"),
            (.writeProtectAsync, "WP_ASYNC"), (.move, "MOVE"),
        ]

        /// The names of the set's features, or its bits if none of them has a name.
        package var description: String {
            let known = Features.names.filter { contains($0.feature) }.map(\.name)
            return known.isEmpty ? "0x" + String(rawValue, radix: 16) : known.joined(separator: " ")
        }
    }
}
