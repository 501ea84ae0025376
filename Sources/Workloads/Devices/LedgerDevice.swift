import Guest

/// The version that each page was written with last: what makes verification independent of the pages' way.
final class LedgerDevice: Device {
    let name = "ledger"
    private let memory: WorkloadMemory
    /// Whether the versions are its state; otherwise it has none.
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
