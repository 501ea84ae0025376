/// A page as a bucket of a hash table, with its entries one after the other.
///
/// The low bits of the page's next word are the number of bytes that the entries take. The highest bit says whether an
/// entry that belongs here was put into a following page. Even in a damaged page, no access leaves the page.
struct KeyValueBucket {
    private static let overflowBit: UInt64 = 1 << 63
    private static let wordOffset = 24

    let page: UnsafeMutableRawPointer
    let pageSize: Int

    private var word: UInt64 {
        @inline(__always)
        get { UInt64(littleEndian: page.load(fromByteOffset: KeyValueBucket.wordOffset, as: UInt64.self)) }
        nonmutating set {
            page.storeBytes(of: newValue.littleEndian, toByteOffset: KeyValueBucket.wordOffset, as: UInt64.self)
        }
    }

    /// The offset in the page at which the entries end.
    @inline(__always)
    private var end: Int {
        PageFormat.headerSize
            &+ Int(min(word & ~KeyValueBucket.overflowBit, UInt64(pageSize &- PageFormat.headerSize)))
    }

    /// Whether an entry that belongs here may be in a following page.
    var overflows: Bool {
        @inline(__always) get { word & KeyValueBucket.overflowBit != 0 }
    }

    /// Notes that an entry that belongs here was put into a following page.
    func setOverflow() {
        word |= KeyValueBucket.overflowBit
    }

    /// Finds the entry of a key; nil if this bucket has none.
    @inline(__always)
    func find(_ key: UInt64) -> KeyValueEntry? {
        let end = self.end
        var offset = PageFormat.headerSize
        while offset &+ KeyValueEntry.headerSize <= end {
            let entry = KeyValueEntry(base: page + offset)
            let size = KeyValueEntry.size(valueLength: entry.length)
            guard offset &+ size <= end else { return nil }
            if entry.key == key { return entry }
            offset &+= size
        }
        return nil
    }

    /// Takes room for one more entry.
    ///
    /// - Returns: nil if the page has too little room.
    func reserve(valueLength: Int) -> KeyValueEntry? {
        let (offset, size) = (end, KeyValueEntry.size(valueLength: valueLength))
        guard offset + size <= pageSize else { return nil }
        word += UInt64(size)
        return KeyValueEntry(base: page + offset)
    }
}
