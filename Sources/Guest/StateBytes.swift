import Outside

/// Little-endian fields of a device's state, written one after the other.
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

/// Reads what ``StateWriter`` wrote. A state comes from another host, so every read may fail.
package struct StateReader {
    private let device: String
    private var rest: ArraySlice<UInt8>

    package init(_ state: [UInt8], of device: String) {
        self.device = device
        rest = state[...]
    }

    /// A word that is only kept and compared, such as a register or a digest: nobody counts with it.
    package mutating func nextBits<Word: FixedWidthInteger>(_: Word.Type = Word.self) throws(DeviceError) -> Word {
        let size = MemoryLayout<Word>.size
        guard rest.count >= size else { throw malformed("it ends too early") }
        let word = rest.withUnsafeBytes { Word(littleEndian: $0.loadUnaligned(as: Word.self)) }
        rest = rest.dropFirst(size)
        return word
    }

    /// A number to count with, once it lies in the bounds.
    ///
    /// - Parameter fault: what is wrong with one that does not.
    package mutating func next<Word: FixedWidthInteger & Sendable>(
        in bounds: ClosedRange<Word>,
        or fault: (_ found: Word) -> String
    ) throws(DeviceError) -> Word {
        let word: Word = try nextBits()
        guard let number = Untrusted(word).within(bounds) else { throw malformed(fault(word)) }
        return number
    }

    /// A count of what has happened so far: a state that claims more than can have happened is not taken, so that
    /// whoever goes on counting never overflows.
    package mutating func nextCount(of what: String) throws(DeviceError) -> UInt64 {
        try next(in: 0...(1 << 62 - 1)) { "it says \($0) \(what)" }
    }

    /// Everything that is left.
    package mutating func takeRest() -> ArraySlice<UInt8> {
        defer { rest = [] }
        return rest
    }

    package func finish() throws(DeviceError) {
        guard rest.isEmpty else { throw malformed("\(rest.count) bytes are left over") }
    }

    package func malformed(_ what: String) -> DeviceError {
        DeviceError(device: device, reason: "its state cannot be read: \(what)")
    }
}
