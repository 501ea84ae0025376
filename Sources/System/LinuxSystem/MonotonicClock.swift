import Glibc

/// CLOCK_MONOTONIC: nanoseconds since boot, the same for every process of one host.
package enum MonotonicClock {
    /// Nanoseconds since boot.
    @inline(__always)
    package static func now() -> UInt64 {
        var time = timespec()
        _ = clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// The time since a moment in nanoseconds since boot; zero if the moment is still to come.
    package static func time(since begin: UInt64) -> Duration {
        let now = now()
        return .nanoseconds(Int64(now - min(now, begin)))
    }

    /// Makes the calling thread sleep; signals do not shorten the sleep.
    package static func sleep(nanoseconds: UInt64) {
        let deadline = now() + nanoseconds
        var time = timespec(nanoseconds: deadline)
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
    }
}

extension timespec {
    init(nanoseconds: UInt64) {
        self.init(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    }
}

/// CLOCK_THREAD_CPUTIME_ID: the processor time that the calling thread has used.
package enum ThreadClock {
    /// Nanoseconds of processor time since the thread began.
    package static func now() -> UInt64 {
        var time = timespec()
        _ = clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// CLOCK_PROCESS_CPUTIME_ID: the processor time that all threads of this process have used.
package enum ProcessClock {
    /// Nanoseconds of processor time since the process began.
    package static func now() -> UInt64 {
        var time = timespec()
        _ = clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
