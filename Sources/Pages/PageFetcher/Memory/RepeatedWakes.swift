import Synchronization

/// Recognizes pages whose readers are woken again and again, and fault again each time.
///
/// A page is noted when its readers are woken although nothing was placed: they raced with the arrival of the page, or
/// the kernel and this program disagree about the page. Only the second case repeats without end.
///
/// The lock is taken on this rare path only.
final class RepeatedWakes: Sendable {
    /// The most wakes of a page within one second.
    ///
    /// A race with the arrival of a page costs at most one wake for each thread that touches the page.
    static let most = 1000
    /// Nanoseconds in which the wakes of a page are counted.
    private static let period: UInt64 = 1_000_000_000
    /// Nanoseconds after which a page that was woken too often is forgotten; more than the pause after which a fault
    /// that was not answered is raised again.
    private static let memory: UInt64 = 3_000_000_000
    /// The most pages that are told apart.
    private static let capacity = 256

    private struct Entry {
        var region: Int
        var page: Int
        var since: UInt64
        var latest: UInt64
        var count: Int
    }

    private let entries: Mutex<[Entry]>

    init() {
        var entries: [Entry] = []
        entries.reserveCapacity(RepeatedWakes.capacity)
        self.entries = Mutex(entries)
    }

    /// Forgets a page, which could be placed: its readers go on.
    func forget(_ page: Int, region: Int) {
        entries.withLock { entries in
            guard let index = entries.firstIndex(where: { $0.page == page && $0.region == region }) else { return }
            entries.swapAt(index, entries.count - 1)
            entries.removeLast()
        }
    }

    /// Notes that the readers of a page are about to be woken.
    ///
    /// - Parameter now: the time, in nanoseconds of `MonotonicClock`.
    /// - Returns: whether to wake them; false if they were woken too often.
    func note(_ page: Int, region: Int, now: UInt64) -> Bool {
        entries.withLock { entries in
            guard let index = entries.firstIndex(where: { $0.page == page && $0.region == region }) else {
                let entry = Entry(region: region, page: page, since: now, latest: now, count: 1)
                if entries.count < RepeatedWakes.capacity {
                    entries.append(entry)
                } else if let oldest = entries.indices.min(by: { entries[$0].latest < entries[$1].latest }) {
                    entries[oldest] = entry
                }
                return true
            }
            let isStuck = entries[index].count > RepeatedWakes.most
            let since = isStuck ? entries[index].latest : entries[index].since
            if now > since + (isStuck ? RepeatedWakes.memory : RepeatedWakes.period) {
                (entries[index].since, entries[index].count) = (now, 0)
            }
            entries[index].latest = now
            entries[index].count += entries[index].count > RepeatedWakes.most ? 0 : 1
            return entries[index].count <= RepeatedWakes.most
        }
    }
}
