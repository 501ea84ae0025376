import Outside

/// Writes the fields of a device's state, little-endian and without padding.
package struct StateWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func append<Word: FixedWidthInteger>(_ word: Word) {
        withUnsafeBytes(of: word.littleEndian) { bytes.append(contentsOf: $0) }
    }

    package mutating func append(_ more: some Collection<UInt8>) {
        bytes.append(contentsOf: more)
    }
}

/// Reads the fields that ``StateWriter`` wrote.
///
/// A state comes from another host, so every read checks what it reads.
package struct StateReader {
    private let device: String
    private var rest: ArraySlice<UInt8>

    package init(_ state: [UInt8], of device: String) {
        self.device = device
        rest = state[...]
    }

    /// Reads a word without bounds.
    ///
    /// For words that are only stored and compared, such as registers and digests. Arithmetic on the result may trap.
    package mutating func nextBits<Word: FixedWidthInteger>(_: Word.Type = Word.self) throws(DeviceError) -> Word {
        let size = MemoryLayout<Word>.size
        guard rest.count >= size else { throw malformed("the state ends too early") }
        let word = rest.withUnsafeBytes { Word(littleEndian: $0.loadUnaligned(as: Word.self)) }
        rest = rest.dropFirst(size)
        return word
    }

    /// Reads a number and refuses it if it lies outside of the bounds.
    ///
    /// - Parameters:
    ///   - bounds: the numbers that are accepted.
    ///   - fault: makes the reason for the refusal from the number that was found.
    package mutating func next<Word: FixedWidthInteger & Sendable>(
        in bounds: ClosedRange<Word>,
        or fault: (_ found: Word) -> String
    ) throws(DeviceError) -> Word {
        let word: Word = try nextBits()
        guard let number = Untrusted(word).within(bounds) else { throw malformed(fault(word)) }
        return number
    }

    /// Reads a count of past events, below 2^62.
    ///
    /// The bound is far above any real count, and leaves the device room to continue counting without overflow.
    package mutating func nextCount(of what: String) throws(DeviceError) -> UInt64 {
        try next(in: 0...(1 << 62 - 1)) { "\($0) \(what) are too many" }
    }

    /// Reads all remaining bytes.
    package mutating func takeRest() -> ArraySlice<UInt8> {
        defer { rest = [] }
        return rest
    }

    /// Refuses a state with bytes behind its last field.
    package func finish() throws(DeviceError) {
        guard rest.isEmpty else { throw malformed("\(rest.count) bytes are left over") }
    }

    package func malformed(_ what: String) -> DeviceError {
        DeviceError(device: device, reason: "its state cannot be read: \(what)")
    }
}
