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
}
