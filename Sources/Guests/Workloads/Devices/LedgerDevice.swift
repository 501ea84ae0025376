import Guest

/// The version that each page was last written with, which verifies the pages independently of how they arrived.
final class LedgerDevice: Device {
    let name = "ledger"
    private let memory: WorkloadMemory
    /// Whether the device's state is the versions; if not, the state is empty.
    private let travels: Bool

    init(_ memory: WorkloadMemory, travels: Bool) {
        self.memory = memory
        self.travels = travels
    }

    func save() -> [UInt8] {
        guard travels else { return [] }
        let byteCount = memory.pageCount * 4
        return [UInt8](unsafeUninitializedCapacity: byteCount) { bytes, count in
            let raw = UnsafeMutableRawBufferPointer(bytes)
            for page in 0..<memory.pageCount {
                raw.storeBytes(of: memory.ledger[page].littleEndian, toByteOffset: page * 4, as: UInt32.self)
            }
            count = byteCount
        }
    }

    /// The current versions; a state with an entry that changes meanwhile is sent again after the stop.
    func saveAhead() -> [UInt8]? { travels ? save() : nil }

    func load(_ state: [UInt8]) throws {
        guard travels else { return try StateReader(state, of: name).finish() }
        guard state.count == memory.pageCount * 4 else {
            let reason = "its state has \(state.count) bytes, and \(memory.pageCount) pages need 4 each"
            throw DeviceError(device: name, reason: reason)
        }
        state.withUnsafeBytes { bytes in
            for page in 0..<memory.pageCount {
                let version = bytes.loadUnaligned(fromByteOffset: page * 4, as: UInt32.self)
                memory.ledger[page] = UInt32(littleEndian: version)
            }
        }
    }
}
