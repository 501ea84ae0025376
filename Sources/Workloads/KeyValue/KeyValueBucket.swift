/// A page as a bucket of a table: entries one after the other.
///
/// The page's next word says how many bytes they take, and in its highest bit whether an entry that belongs here had
/// to go on to the next page. Whatever the page holds, nothing outside of it is touched.
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

    /// Where the entries end, as an offset in the page.
    @inline(__always)
    private var end: Int {
        PageFormat.headerSize
            &+ Int(min(word & ~KeyValueBucket.overflowBit, UInt64(pageSize &- PageFormat.headerSize)))
    }

    /// Whether an entry that belongs here may be in the next page.
    var overflows: Bool {
        @inline(__always) get { word & KeyValueBucket.overflowBit != 0 }
    }

    /// Notes that an entry that belongs here went to the next page.
    func setOverflow() {
        word |= KeyValueBucket.overflowBit
    }

    /// The entry of a key.
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
    /// - Returns: nil when there is not enough.
    func reserve(valueLength: Int) -> KeyValueEntry? {
        let (offset, size) = (end, KeyValueEntry.size(valueLength: valueLength))
        guard offset + size <= pageSize else { return nil }
        word += UInt64(size)
        return KeyValueEntry(base: page + offset)
    }
}
