import Glibc
import LinuxSystem
import Synchronization

/// Starts and ends one run of a workload's threads, and wakes threads that rest between two operations.
///
/// `@unchecked Sendable`: the mutex and the condition never move, and all threads may use them.
final class RunSignal: @unchecked Sendable {
    private enum Phase {
        static let held: UInt8 = 0
        static let running: UInt8 = 1
        static let stopping: UInt8 = 2
    }

    /// Nanoseconds below which a rest spins instead of sleeping, since a sleep overshoots by about as much.
    private static let shortestSleep: UInt64 = 50_000

    // Relaxed: a loop need only see the change soon. Starting and joining the threads orders everything else.
    private let phase = Atomic<UInt8>(Phase.held)
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    init() {
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
        condition = .allocate(capacity: 1)
        condition.initialize(to: pthread_cond_t())
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    /// Starts the run.
    func begin() {
        change(to: Phase.running)
    }

    /// Ends the run: no thread begins another operation.
    func stop() {
        change(to: Phase.stopping)
    }

    private func change(to new: UInt8) {
        pthread_mutex_lock(mutex)
        phase.store(new, ordering: .relaxed)
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Whether the run was ended.
    var isStopping: Bool {
        @inline(__always) get { phase.load(ordering: .relaxed) == Phase.stopping }
    }

    /// Waits until the run starts, or ends without having started.
    func waitForBegin() {
        pthread_mutex_lock(mutex)
        while phase.load(ordering: .relaxed) == Phase.held { pthread_cond_wait(condition, mutex) }
        pthread_mutex_unlock(mutex)
    }

    /// Rests for a time in nanoseconds, or until the run ends.
    func rest(from now: UInt64, for duration: UInt64) {
        let deadline = now + duration
        guard duration >= RunSignal.shortestSleep else {
            while !isStopping && MonotonicClock.now() < deadline {}
            return
        }
        var until = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
        pthread_mutex_lock(mutex)
        while !isStopping && MonotonicClock.now() < deadline {
            pthread_cond_timedwait(condition, mutex, &until)
        }
        pthread_mutex_unlock(mutex)
    }
}
