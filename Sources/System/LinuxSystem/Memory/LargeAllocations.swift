import CShims

/// Allocations of 256 KiB and more, such as those that hold a device's state.
package enum LargeAllocations {
    /// The smallest allocation that counts as large, in bytes.
    private static let least: CInt = 1 << 18

    /// Makes large allocations return to the kernel when they are freed.
    ///
    /// By default glibc keeps freed memory for later allocations, for each thread separately. Memory once used for what
    /// a peer has sent would stay allocated.
    package static func returnWhenFreed() {
        // An allocator that does not take the bound keeps more memory, and works.
        _ = shim_map_allocations_from(least)
    }
}
