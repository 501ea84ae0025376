import LinuxSystem
import Synchronization

/// The huge pages that a guest may still take from the kernel's pool, where none are reserved for it.
final class PoolClaim: Sendable {
    /// Counts the pages that were placed, and how many they were at first.
    private typealias Count = (placed: @Sendable () -> Int, first: Int)

    /// The pages that the guest lacked at first.
    private let lacking: Int
    private let count = Mutex<Count?>(nil)

    /// Makes the claim of a guest that lacks pages.
    init(lacking: Int) { self.lacking = lacking }

    /// Reads what a process lacks in these ranges; nil if it needs no huge page, or does not show its mappings.
    convenience init?(of process: borrowing PeerProcess, _ ranges: [PageRange]) {
        let huge = ranges.filter(\.isHuge)
        guard !huge.isEmpty, process.canBeSignalled else { return nil }
        // A guest whose mappings cannot be read is served for as long as the pool has pages.
        guard let mappings = try? ProcessMappings(of: process.id) else { return nil }
        self.init(lacking: mappings.unreservedHugePages(in: huge))
    }

    /// Subtracts the pages that are placed from now on.
    ///
    /// A page that the guest drops counts as placed, although the pool may have to give it again.
    func subtract(_ placed: @escaping @Sendable () -> Int) {
        let first = placed()
        count.withLock { $0 = (placed, first) }
    }

    /// The pages that the guest may still take.
    var rest: Int {
        let placed = count.withLock { count in count.map { $0.placed() - $0.first } ?? 0 }
        return max(0, lacking - max(0, placed))
    }
}
