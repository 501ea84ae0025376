import Foundation

/// Damages sound input, in the same way for the same seed.
struct Mutator: RandomNumberGenerator {
    /// The seed: PAGEFERRY_SEED, or a new one for each run.
    static let seed =
        ProcessInfo.processInfo.environment["PAGEFERRY_SEED"].flatMap { UInt64($0) }
        ?? UInt64.random(in: 0...UInt64.max)

    private var state: UInt64

    init(_ name: String) {
        state = name.utf8.reduce(Mutator.seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        print("hostile input for \(name): PAGEFERRY_SEED=\(Mutator.seed)")
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }

    private static let words: [UInt64] = [
        0, 1, .max, .max - 1, 1 << 63, 1 << 63 - 1, 1 << 62, 1 << 46, 1 << 44, 1 << 32, 0xffff_ffff, 4096, 4095,
    ]

    /// Returns the input with some bytes changed, cut off, doubled, or replaced by the extreme of a number.
    mutating func damaged(_ sound: [UInt8]) -> [UInt8] {
        var bytes = sound
        for _ in 0...Int.random(in: 0...3, using: &self) {
            switch Int.random(in: 0...6, using: &self) {
            case 0 where !bytes.isEmpty:
                bytes[bytes.indices.randomElement(using: &self) ?? 0] ^= 1 << UInt8.random(in: 0...7, using: &self)
            case 1: bytes.removeLast(Int.random(in: 0...min(16, bytes.count), using: &self))
            case 2: bytes += (0...Int.random(in: 0...16, using: &self)).map { _ in UInt8(truncatingIfNeeded: next()) }
            case 3, 4, 5:
                let size = [1, 2, 4, 8].randomElement(using: &self) ?? 8
                guard bytes.count >= size else { continue }
                let word = Mutator.words.randomElement(using: &self) ?? 0
                let place = Int.random(in: 0...(bytes.count - size), using: &self)
                withUnsafeBytes(of: word.littleEndian) {
                    bytes.replaceSubrange(place..<place + size, with: $0[..<size])
                }
            default:
                guard bytes.count > 1 else { continue }
                bytes.removeSubrange(0..<Int.random(in: 0..<bytes.count, using: &self))
            }
        }
        return bytes
    }

    private static let values = [
        "-1", "0", "1", "1.5", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "1e300", "-1e300",
        "1e999", "NaN", "null", "true", "\"x\"", "[]", "{}", "8796093022208", "1073741825", "1e-300", "\"\\u0000\"",
    ]

    /// Returns a JSON text with one or more numbers replaced, or with damaged bytes.
    mutating func damagedJSON(_ sound: String) -> [UInt8] {
        guard Int.random(in: 0...7, using: &self) > 0 else { return damaged(Array(sound.utf8)) }
        var text = sound
        for _ in 0...Int.random(in: 0...2, using: &self) {
            let numbers = text.ranges(of: /-?[0-9]+(\.[0-9]+)?|true|false/)
            guard let range = numbers.randomElement(using: &self) else { break }
            text.replaceSubrange(range, with: Mutator.values.randomElement(using: &self) ?? "0")
        }
        return Array(text.utf8)
    }
}
