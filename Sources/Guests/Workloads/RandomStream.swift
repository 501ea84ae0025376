/// A pseudo-random stream whose whole state is one word (SplitMix64), so that another host can continue it.
struct RandomStream: Hashable, Sendable {
    /// The position in the stream.
    var state: UInt64

    init(state: UInt64) {
        self.state = state
    }

    /// Makes the stream with a number of its own among those of one seed.
    init(seed: UInt64, stream: UInt64) {
        state = mixed(seed ^ mixed(stream &+ 0x9E37_79B9_7F4A_7C15))
    }

    @inline(__always)
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return mixed(state)
    }

    /// Draws a uniform number below `bound`, which must not be 0.
    ///
    /// The bias is below 2^-32 for bounds up to 2^31, the most pages of a workload.
    @inline(__always)
    mutating func next(below bound: Int) -> Int {
        Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// Draws a uniform number from 0 up to, but not including, 1.
    @inline(__always)
    mutating func nextFraction() -> Double {
        Double(next() >> 11) * 0x1p-53
    }
}

/// Scrambles a word one-to-one, so that each bit of the result depends on every bit of the argument.
@inline(__always)
func mixed(_ word: UInt64) -> UInt64 {
    var word = word
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
}

/// A 64-bit digest of bytes, independent of their alignment; not cryptographic.
func digest(of bytes: UnsafeRawBufferPointer, seed: UInt64) -> UInt64 {
    var hash = mixed(seed ^ UInt64(bytes.count))
    var offset = 0
    while offset + 8 <= bytes.count {
        let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        hash = mixed(hash ^ word)
        offset += 8
    }
    var tail: UInt64 = 0
    while offset < bytes.count {
        tail = tail << 8 | UInt64(bytes[offset])
        offset += 1
    }
    return mixed(hash ^ tail)
}
