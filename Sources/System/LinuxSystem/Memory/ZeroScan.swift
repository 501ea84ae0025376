/// Distinguishes pages of zeros from others, at the speed of memory.
package enum ZeroScan {
    /// Whether a page holds only zeros.
    ///
    /// - Parameters:
    ///   - page: readable memory, aligned to 64 bytes.
    ///   - byteCount: a multiple of 512.
    @inline(__always)
    package static func isZero(_ page: UnsafeRawPointer, byteCount: Int) -> Bool {
        let vectors = page.assumingMemoryBound(to: SIMD8<UInt64>.self)
        // Most pages that are not all zeros show that in their first bytes.
        guard vectors[0] == .zero else { return false }
        var index = 0
        while index < byteCount / 64 {
            let low = vectors[index] | vectors[index + 1] | vectors[index + 2] | vectors[index + 3]
            let high = vectors[index + 4] | vectors[index + 5] | vectors[index + 6] | vectors[index + 7]
            guard low | high == .zero else { return false }
            index += 8
        }
        return true
    }
}
