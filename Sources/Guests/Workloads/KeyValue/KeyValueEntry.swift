/// One key and its value in a bucket: a header of 24 bytes, then the value, padded with zeros to a multiple of 8 bytes.
///
/// The header's little-endian fields, with their bytes: key (8), digest of the value seeded by the key (8), number of
/// puts (4), length (2), flags (2).
struct KeyValueEntry {
    static let headerSize = 24
    /// The longest piece of a line, in bytes, chosen so that a page of 4096 bytes has room for three pieces.
    static let maximumPiece = 1000
    /// Bytes in the value of a made-up key.
    static let syntheticLength = 104

    let base: UnsafeMutableRawPointer

    /// The size of an entry with a value of that length, in bytes.
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

    /// Whether the line continues under the key of the next piece.
    var continues: Bool {
        base.load(fromByteOffset: 22, as: UInt8.self) & 1 != 0
    }

    var value: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + KeyValueEntry.headerSize, count: length)
    }

    /// Whether the value matches its digest.
    var isWhole: Bool {
        digest == Workloads.digest(of: value, seed: key)
    }

    /// Writes a whole entry into memory that holds zeros.
    func write(key: UInt64, value: UnsafeRawBufferPointer, continues: Bool) {
        base.storeBytes(of: key.littleEndian, as: UInt64.self)
        base.storeBytes(of: UInt16(value.count).littleEndian, toByteOffset: 20, as: UInt16.self)
        base.storeBytes(of: continues ? 1 : 0, toByteOffset: 22, as: UInt8.self)
        if let bytes = value.baseAddress {
            (base + KeyValueEntry.headerSize).copyMemory(from: bytes, byteCount: value.count)
        }
        sealValue(key)
    }

    /// Counts a put; the value of a made-up key also changes, while a line stays as it is.
    @inline(__always)
    func put(synthetic: Bool, seed: UInt64) {
        let count = putCount &+ 1
        base.storeBytes(of: count.littleEndian, toByteOffset: 16, as: UInt32.self)
        if synthetic { makeUp(seed: seed, key: key, count: count) }
    }

    /// Writes the value of a made-up key, derived from seed, key and number of puts.
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
