extension Userfaultfd {
    /// What a kernel's userfaultfd can do, as `linux/userfaultfd.h` numbers it.
    public struct Features: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The kernel's bits.
        public let rawValue: UInt64

        /// Makes a set out of the kernel's bits.
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Children of a fork are followed.
        public static let eventFork = Features(rawValue: 1 << 1)
        /// mremap is told.
        public static let eventRemap = Features(rawValue: 1 << 2)
        /// MADV_DONTNEED and MADV_REMOVE are told.
        public static let eventRemove = Features(rawValue: 1 << 3)
        /// Missing pages of hugetlbfs.
        public static let missingHugetlbfs = Features(rawValue: 1 << 4)
        /// Missing pages of shared memory.
        public static let missingShmem = Features(rawValue: 1 << 5)
        /// munmap is told.
        public static let eventUnmap = Features(rawValue: 1 << 6)
        /// A fault raises SIGBUS instead of an event.
        public static let sigbus = Features(rawValue: 1 << 7)
        /// Fault events carry the thread that faulted.
        public static let threadID = Features(rawValue: 1 << 8)
        /// Minor faults of hugetlbfs.
        public static let minorHugetlbfs = Features(rawValue: 1 << 9)
        /// Minor faults of shared memory.
        public static let minorShmem = Features(rawValue: 1 << 10)
        /// Fault addresses are not rounded down to the page.
        public static let exactAddress = Features(rawValue: 1 << 11)
        /// Pages can be marked as lost.
        public static let poison = Features(rawValue: 1 << 14)
        /// Write protection that needs no handler.
        public static let writeProtectAsync = Features(rawValue: 1 << 15)
        /// Pages can be moved instead of copied.
        public static let move = Features(rawValue: 1 << 16)

        /// The features and the names that `pageferry probe` prints for them.
        public static let names: [(feature: Features, name: String)] = [
            (.eventFork, "EVENT_FORK"), (.eventRemap, "EVENT_REMAP"), (.eventRemove, "EVENT_REMOVE"),
            (.missingHugetlbfs, "MISSING_HUGETLBFS"), (.missingShmem, "MISSING_SHMEM"), (.eventUnmap, "EVENT_UNMAP"),
            (.sigbus, "SIGBUS"), (.threadID, "THREAD_ID"), (.minorHugetlbfs, "MINOR_HUGETLBFS"),
            (.minorShmem, "MINOR_SHMEM"), (.exactAddress, "EXACT_ADDRESS"), (.poison, "POISON"),
            (.writeProtectAsync, "WP_ASYNC"), (.move, "MOVE"),
        ]

        /// The names of the set's features, or its bits where none has a name.
        public var description: String {
            let known = Features.names.filter { contains($0.feature) }.map(\.name)
            return known.isEmpty ? "0x" + String(rawValue, radix: 16) : known.joined(separator: " ")
        }
    }
}
