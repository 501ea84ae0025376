import Glibc

/// CLOCK_MONOTONIC: nanoseconds since boot, the same for every process of one host.
public enum MonotonicClock {
    /// Nanoseconds since boot.
    @inline(__always)
    public static func now() -> UInt64 {
        var time = timespec()
        _ = clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Lets the calling thread sleep; a signal does not shorten that.
    public static func sleep(nanoseconds: UInt64) {
        let deadline = now() + nanoseconds
        var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
    }
}

/// CLOCK_PROCESS_CPUTIME_ID: what all threads of this process have used of its processors.
public enum ProcessClock {
    /// Nanoseconds since the process began.
    public static func now() -> UInt64 {
        var time = timespec()
        _ = clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
