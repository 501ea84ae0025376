/// Which run lease a peer uses, said in HELLO; the two sides must say the same.
public enum LeaseClaim: Sendable {
    /// No lease: the order of messages alone arbitrates.
    case absent
    /// Files in a store that both hosts mount.
    ///
    /// `epoch` is the one from which the migration started, also after a commit; `store` and `workload` have 1 to 1024 bytes.
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
    /// Compares store and workload byte by byte: names that are canonically equivalent Unicode are different files.
    public static func == (first: Self, second: Self) -> Bool {
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
