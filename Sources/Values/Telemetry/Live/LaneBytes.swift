import Synchronization

/// The bytes that each connection for pages has carried, counted by the threads that serve the connections.
package final class LaneBytes: Sendable {
    /// The kind of connection.
    package enum Kind: String, Sendable {
        case urgent
        /// The connections of the push.
        case push
    }

    /// The bytes of one connection.
    package struct Lane: Hashable, Sendable {
        /// What tells a connection from the others.
        package struct Name: Hashable, Sendable {
            package let kind: Kind
            /// The index among the connections of its kind.
            package let index: Int
        }

        package let name: Name
        package let bytes: UInt64
    }

    /// The most lanes of each kind that are told apart: those that the protocol allows.
    private static let (urgentLanes, pushLanes) = (16, 64)
    /// The counters of a cache line, of which one is used, so that no two threads write to the same line.
    private static let stride = 8

    /// `@unchecked Sendable`: the memory never moves, and every access is atomic.
    private final class Counts: @unchecked Sendable {
        let base: UnsafeMutablePointer<Atomic<UInt64>>
        private let count = (LaneBytes.urgentLanes + LaneBytes.pushLanes) * LaneBytes.stride

        init() {
            base = .allocate(capacity: count)
            for index in 0..<count { (base + index).initialize(to: Atomic(0)) }
        }

        deinit {
            base.deinitialize(count: count)
            base.deallocate()
        }
    }

    private let counts = Counts()

    /// Makes counts of zero.
    package init() {}

    /// Counts bytes of a connection; those beyond the known ones are counted as the last.
    @inline(__always)
    package func add(_ bytes: Int, kind: Kind, index: Int) {
        counts.base[LaneBytes.place(kind, index)].add(UInt64(truncatingIfNeeded: bytes), ordering: .relaxed)
    }

    @inline(__always)
    private static func place(_ kind: Kind, _ index: Int) -> Int {
        switch kind {
        case .urgent: min(index, urgentLanes - 1) * stride
        case .push: (urgentLanes + min(index, pushLanes - 1)) * stride
        }
    }

    /// The connections that have carried something.
    package var lanes: [Lane] {
        let all = (0..<LaneBytes.urgentLanes).map { (Kind.urgent, $0) } + (0..<LaneBytes.pushLanes).map { (.push, $0) }
        return all.compactMap { kind, index in
            let bytes = counts.base[LaneBytes.place(kind, index)].load(ordering: .relaxed)
            return bytes == 0 ? nil : Lane(name: Lane.Name(kind: kind, index: index), bytes: bytes)
        }
    }
}
