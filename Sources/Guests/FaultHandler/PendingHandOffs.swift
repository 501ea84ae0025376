import LinuxSystem
import Synchronization

/// The hand-offs whose parts are being received, each of which takes a thread, bounded for each process.
final class PendingHandOffs: Sendable {
    /// Why a hand-off is not received.
    struct TooMany: Error, CustomStringConvertible {
        var description: String {
            "\(PendingHandOffs.most) hand-offs of the same process are not whole yet; hand over one userfaultfd per process"
        }
    }

    /// The most hand-offs of one process at a time.
    static let most = 8

    private let counts = Mutex<[PeerOrigin: Int]>([:])

    /// Counts a hand-off whose first part has come.
    func begin(_ origin: PeerOrigin) throws(TooMany) {
        try counts.withLock { counts throws(TooMany) in
            guard counts[origin, default: 0] < PendingHandOffs.most else { throw TooMany() }
            counts[origin, default: 0] += 1
        }
    }

    /// Counts the hand-off no longer.
    func end(_ origin: PeerOrigin) {
        counts.withLock { counts in
            let rest = counts[origin, default: 1] - 1
            counts[origin] = rest > 0 ? rest : nil
        }
    }
}
