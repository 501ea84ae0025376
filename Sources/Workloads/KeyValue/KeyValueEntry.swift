/// One key with its value in a bucket: 24 bytes of header, then the value, padded to 8 bytes by zeros.
///
/// Little-endian: key (8), digest of the value seeded by the key (8), how often it was put (4), length (2), flags (2).
struct KeyValueEntry {
    static let headerSize = 24
    /// Longer values are cut into pieces of this many bytes, so that a page of 4096 always has room for three.
    static let maximumPiece = 1000
    /// Bytes in a value of a made-up key.
    static let syntheticLength = 104

    let base: UnsafeMutableRawPointer

    /// Bytes that an entry takes.
    @inline(__always)
    static func size(valueLength: Int) -> Int {
        headerSize &+ (valueLength &+ 7) & ~7
    }

    /// The key of a piece of a line.
    static func key(line: Int, piece: Int) -> UInt64 {
        UInt64(line) | UInt64(piece) << 40
    }

    var key: UInt64 {
        @inline(__always) get { UInt64(littleEndian: base.load(as: UInt64.self)) }
    }

    var digest: UInt64 {
        UInt64(littleEndian: base.load(fromByteOffset: 8, as: UInt64.self))
    }

    var putCount: UInt32 {
        UInt32(littleEndian: base.load(fromByteOffset: 16, as: UInt32.self))
    }

    var length: Int {
        @inline(__always) get { Int(UInt16(littleEndian: base.load(fromByteOffset: 20, as: UInt16.self))) }
    }

    /// Whether the value goes on under the key of the next piece.
    var continues: Bool {
        base.load(fromByteOffset: 22, as: UInt8.self) & 1 != 0
    }

    var value: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + KeyValueEntry.headerSize, count: length)
    }

    /// Whether the value is the one that was put.
    var isWhole: Bool {
        digest == Workloads.digest(of: value, seed: key)
    }

    /// Writes a whole entry into memory of zeros.
    func write(key: UInt64, value: UnsafeRawBufferPointer, continues: Bool) {
        base.storeBytes(of: key.littleEndian, as: UInt64.self)
        base.storeBytes(of: UInt16(value.count).littleEndian, toByteOffset: 20, as: UInt16.self)
        base.storeBytes(of: continues ? 1 : 0, toByteOffset: 22, as: UInt8.self)
        if let bytes = value.baseAddress {
            (base + KeyValueEntry.headerSize).copyMemory(from: bytes, byteCount: value.count)
        }
        sealValue(key)
    }

    /// Puts the entry once more: a line keeps its bytes, a made-up value becomes the next one.
    @inline(__always)
    func put(synthetic: Bool, seed: UInt64) {
        let count = putCount &+ 1
        base.storeBytes(of: count.littleEndian, toByteOffset: 16, as: UInt32.self)
        if synthetic { makeUp(seed: seed, key: key, count: count) }
    }

    /// Fills in the value of a made-up key.
    @inline(__always)
    func makeUp(seed: UInt64, key: UInt64, count: UInt32) {
        var word = mixed(seed ^ mixed(key ^ UInt64(count) << 40))
        var offset = KeyValueEntry.headerSize
        while offset < KeyValueEntry.headerSize &+ length {
            word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            base.storeBytes(of: word.littleEndian, toByteOffset: offset, as: UInt64.self)
            offset &+= 8
        }
        sealValue(key)
    }

    private func sealValue(_ key: UInt64) {
        let digest = Workloads.digest(of: value, seed: key)
        base.storeBytes(of: digest.littleEndian, toByteOffset: 8, as: UInt64.self)
    }
}
