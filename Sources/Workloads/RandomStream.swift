/// A fast stream of numbers whose whole state is one word (SplitMix64), so that it can go on elsewhere.
struct RandomStream: Hashable, Sendable {
    /// Where the stream is.
    var state: UInt64

    init(state: UInt64) {
        self.state = state
    }

    /// A stream of its own for each of several users of one seed.
    init(seed: UInt64, stream: UInt64) {
        state = mixed(seed ^ mixed(stream &+ 0x9E37_79B9_7F4A_7C15))
    }

    @inline(__always)
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return mixed(state)
    }

    /// A uniform number below `bound`, which is not 0. Its bias is below 2^-32 for the bounds that occur.
    @inline(__always)
    mutating func next(below bound: Int) -> Int {
        Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// A uniform number from 0 up to and without 1.
    @inline(__always)
    mutating func nextFraction() -> Double {
        Double(next() >> 11) * 0x1p-53
    }
}

/// A one-to-one scrambling of a word: each bit of the result depends on every bit of the argument.
@inline(__always)
func mixed(_ word: UInt64) -> UInt64 {
    var word = word
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
}

/// A 64-bit digest of bytes, the same wherever they lie.
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
