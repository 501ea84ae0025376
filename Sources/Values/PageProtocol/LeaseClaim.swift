/// Which run lease a peer uses; the HELLOs of both sides must name the same one.
package enum LeaseClaim: Sendable {
    /// No lease: the order of messages alone decides who runs.
    case absent
    /// Files in a store that both hosts mount.
    ///
    /// `epoch` is the lease's epoch when the migration started, even after a commit. `store` and `workload` have 1 to
    /// 1024 bytes each.
    case files(epoch: UInt64, store: String, workload: String)

    /// The lease's kind on the wire.
    var kind: UInt8 {
        switch self {
        case .absent: 0
        case .files: 1
        }
    }
}

extension LeaseClaim: Hashable {
    /// Compares store and workload byte by byte, since canonically equivalent Unicode names are different files.
    package static func == (first: Self, second: Self) -> Bool {
        switch (first, second) {
        case (.absent, .absent):
            true
        case (.files(let epoch, let store, let workload), .files(let otherEpoch, let otherStore, let otherWorkload)):
            epoch == otherEpoch && store.utf8.elementsEqual(otherStore.utf8)
                && workload.utf8.elementsEqual(otherWorkload.utf8)
        case (.absent, .files), (.files, .absent):
            false
        }
    }
}
