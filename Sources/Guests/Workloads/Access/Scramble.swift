/// A fixed permutation of 0..<count without a table, so that pages of neighbouring ranks are not neighbours in memory.
struct Scramble: Sendable {
    private let count: UInt64
    private let mask: UInt64
    private let shift: UInt64
    private let offset: UInt64

    init(count: Int, seed: UInt64) {
        self.count = UInt64(count)
        let bits = max(1, UInt64.bitWidth - (UInt64(count) &- 1).leadingZeroBitCount)
        mask = bits == 64 ? .max : (1 << UInt64(bits)) - 1
        shift = UInt64((bits + 1) / 2)
        offset = mixed(seed)
    }

    /// Maps `index`, which must be below the count.
    @inline(__always)
    func callAsFunction(_ index: Int) -> Int {
        var word = UInt64(index)
        // Each step permutes the numbers below the next power of two. Repeating it along the cycle of `index` always
        // returns to a number below the count.
        repeat {
            word = (word &+ offset) &* 0x9E37_79B9_7F4A_7C15 & mask
            word ^= word >> shift
            word = word &* 0xBF58_476D_1CE4_E5B9 & mask
            word ^= word >> shift
        } while word >= count
        return Int(truncatingIfNeeded: word)
    }
}
