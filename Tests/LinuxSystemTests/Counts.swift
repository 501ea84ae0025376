import Synchronization

/// A sum that threads add to.
final class Counts: Sendable {
    private let value = Atomic<Int>(0)

    var sum: Int { value.load(ordering: .acquiring) }

    func add(_ count: Int) {
        value.add(count, ordering: .acquiringAndReleasing)
    }
}
