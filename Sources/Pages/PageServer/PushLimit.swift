import LinuxSystem
import Synchronization

/// The limit on the bytes per second that all lanes push together.
///
/// Compressed pages count as they are sent. Any thread may set the limit.
final class PushLimit: Sendable {
    private let bytesPerSecond = Atomic<Int>(0)
    private let isLifted = Atomic<Bool>(false)
    private let change: EventDescriptor
    /// The time at which the latest rest ended, in nanoseconds of ``MonotonicClock``; held by the lane that rests.
    ///
    /// Lanes rest one after the other, so that the bytes of each are counted by themselves. A change of the limit wakes
    /// the lane that rests. That lane ends its turn, and the next lane reads the new limit.
    private let turn = Mutex<UInt64>(0)

    init() throws(SystemError) {
        change = try EventDescriptor()
    }

    /// Sets the limit in bytes of pages per second, as they are sent; 0 means no limit.
    func set(bytesPerSecond: Int) {
        self.bytesPerSecond.store(bytesPerSecond, ordering: .relaxed)
        change.raise()
    }

    /// Lifts the limit, so that a resting thread wakes and rests no more before it exits, or restores the limit.
    func lift(_ isLifted: Bool) {
        self.isLifted.store(isLifted, ordering: .relaxed)
        change.raise()
    }

    /// The bytes that one of the lanes sends at once: at most `bytes`, and at most its part of a tenth of a second's
    /// share of the limit.
    @inline(__always)
    func batch(atMost bytes: Int, lanes: Int) -> Int {
        let limit = bytesPerSecond.load(ordering: .relaxed)
        return limit == 0 ? bytes : min(bytes, max(1, limit / 10 / lanes))
    }

    /// Rests until sending `bytes` has taken as long as the limit demands.
    ///
    /// - Parameters:
    ///   - bytes: the bytes of pages, as they were sent.
    ///   - begin: the time at which their sending began, in nanoseconds of ``MonotonicClock``.
    @inline(__always)
    func rest(after bytes: Int, since begin: UInt64) {
        // A send without pages waits for no other lane.
        guard bytes > 0, bytesPerSecond.load(ordering: .relaxed) > 0 else { return }
        rest(bytes, begin)
    }

    @inline(never)
    private func rest(_ bytes: Int, _ begin: UInt64) {
        turn.withLock { latest in
            rest(bytes, since: max(begin, latest))
            latest = MonotonicClock.now()
        }
    }

    private func rest(_ bytes: Int, since begin: UInt64) {
        while true {
            // The event is cleared before the limit is read, so that a later change raises it again.
            change.clear()
            let limit = bytesPerSecond.load(ordering: .relaxed)
            guard limit > 0, !isLifted.load(ordering: .relaxed) else { return }
            let milliseconds = Double(bytes) / Double(limit) * 1e3 - Double(MonotonicClock.now() - begin) / 1e6
            guard milliseconds > 0, change.wait(milliseconds: Int(min(milliseconds.rounded(.up), 1e9))) else { return }
        }
    }
}
