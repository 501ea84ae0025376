import CShims

/// Allocations as large as those that hold a device's state.
public enum LargeAllocations {
    /// Bytes of an allocation that is large.
    private static let least: CInt = 1 << 18

    /// From now on a large allocation goes back to the kernel when it is freed.
    ///
    /// By itself glibc keeps what was freed for the next, and so for each thread: what one peer has sent would stay.
    public static func returnWhenFreed() {
        // An allocator that does not take the bound keeps more, and works.
        _ = shim_map_allocations_from(least)
    }
}
