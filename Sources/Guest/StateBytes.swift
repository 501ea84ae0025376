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

    package mutating func next<Word: FixedWidthInteger>(_: Word.Type = Word.self) throws(DeviceError) -> Word {
        let size = MemoryLayout<Word>.size
        guard rest.count >= size else { throw malformed("it ends too early") }
        let word = rest.withUnsafeBytes { Word(littleEndian: $0.loadUnaligned(as: Word.self)) }
        rest = rest.dropFirst(size)
        return word
    }

    /// A count of what has happened so far: a state that claims more than can have happened is not taken, so that
    /// whoever goes on counting never overflows.
    package mutating func nextCount(of what: String) throws(DeviceError) -> UInt64 {
        let count: UInt64 = try next()
        guard count < 1 << 62 else { throw malformed("it says \(count) \(what)") }
        return count
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
