import LinuxSystem
import Synchronization

/// How fast pages are pushed that nobody waits for: any thread sets it, the pushing thread keeps it.
final class PushLimit: Sendable {
    private let bytesPerSecond = Atomic<Int>(0)
    private let isLifted = Atomic<Bool>(false)
    private let change: EventDescriptor

    init() throws(SystemError) {
        change = try EventDescriptor()
    }

    /// From now on at most this many bytes of pages a second; 0 is as many as the network takes.
    func set(bytesPerSecond: Int) {
        self.bytesPerSecond.store(bytesPerSecond, ordering: .relaxed)
        change.raise()
    }

    /// Lets a thread that rests go on at once, and no longer rest, as it is to end; or makes the limit count again.
    func lift(_ isLifted: Bool) {
        self.isLifted.store(isLifted, ordering: .relaxed)
        change.raise()
    }

    /// How many bytes to send at once: a tenth of a second's at most.
    @inline(__always)
    func batch(atMost bytes: Int) -> Int {
        let limit = bytesPerSecond.load(ordering: .relaxed)
        return limit == 0 ? bytes : min(bytes, max(1, limit / 10))
    }

    /// Rests until bytes that were sent have taken the time that the limit gives them.
    ///
    /// - Parameter begin: when their sending began, in nanoseconds of ``MonotonicClock``.
    @inline(__always)
    func rest(after bytes: Int, since begin: UInt64) {
        guard bytesPerSecond.load(ordering: .relaxed) > 0 else { return }
        rest(bytes, begin)
    }

    @inline(never)
    private func rest(_ bytes: Int, _ begin: UInt64) {
        while true {
            // Lowered before the limit is read: a change that comes later raises it again.
            change.clear()
            let limit = bytesPerSecond.load(ordering: .relaxed)
            guard limit > 0, !isLifted.load(ordering: .relaxed) else { return }
            let milliseconds = Double(bytes) / Double(limit) * 1e3 - Double(MonotonicClock.now() - begin) / 1e6
            guard milliseconds > 0, change.wait(milliseconds: Int(min(milliseconds.rounded(.up), 1e9))) else { return }
        }
    }
}
