import Guest

/// A device with a large state, such as a graphics card's.
package final class LargeDevice: Device {
    /// The device's name.
    package let name: String
    private let byteCount: Int
    private let seed: UInt64

    /// Makes a device with a state of that many MiB, derived from the seed.
    package init(name: String = "large", mebibytes: Int, seed: UInt64) {
        self.name = name
        self.seed = seed
        byteCount = mebibytes << 20
    }

    /// Returns the state.
    package func save() -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: byteCount) { bytes, count in
            let raw = UnsafeMutableRawBufferPointer(bytes)
            var words = RandomStream(seed: seed, stream: 0)
            for offset in stride(from: 0, to: byteCount, by: 8) {
                raw.storeBytes(of: words.next().littleEndian, toByteOffset: offset, as: UInt64.self)
            }
            count = byteCount
        }
    }

    /// Returns the state, which never changes.
    package func saveAhead() -> [UInt8]? { save() }

    /// Checks every byte of a state.
    ///
    /// - Throws: `DeviceError` that says where the state differs.
    package func load(_ state: [UInt8]) throws {
        guard state.count == byteCount else {
            throw DeviceError(device: name, reason: "its state has \(state.count) of \(byteCount) bytes")
        }
        let wrong = state.withUnsafeBytes { bytes in
            var words = RandomStream(seed: seed, stream: 0)
            return stride(from: 0, to: byteCount, by: 8).first { offset in
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) != words.next()
            }
        }
        if let wrong { throw DeviceError(device: name, reason: "its state is wrong at byte \(wrong) or soon after") }
    }
}
