/// A fixed permutation of 0..<count without a table, so that neighbours in rank are strangers in memory.
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

    /// Where `index`, which is below the count, goes.
    @inline(__always)
    func callAsFunction(_ index: Int) -> Int {
        var word = UInt64(index)
        // Each step is one-to-one on the next power of two; a walk along its cycle comes back below the count.
        repeat {
            word = (word &+ offset) &* 0x9E37_79B9_7F4A_7C15 & mask
            word ^= word >> shift
            word = word &* 0xBF58_476D_1CE4_E5B9 & mask
            word ^= word >> shift
        } while word >= count
        return Int(truncatingIfNeeded: word)
    }
}
