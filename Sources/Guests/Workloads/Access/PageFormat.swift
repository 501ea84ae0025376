/// The layout of a workload's page, by which a wrong page is recognised.
///
/// A page begins with four little-endian 64-bit words: its index; its version; a checksum of everything else in the
/// page; and the index of the next page (``AccessPattern/chase``) or the bucket's fill level (``AccessPattern/kv``).
/// The payload follows. A page of version 0 was never written, and holds only zeros.
struct PageFormat: Sendable {
    /// Bytes before the payload.
    static let headerSize = 32

    /// The ledger's entry for a page of unknown version; no page is written with this version.
    static let unknownVersion = UInt32.max

    /// Bytes in a page, a multiple of 32.
    let pageSize: Int
    /// The seed of payloads and checksums, so that another workload's page is recognised as wrong.
    let seed: UInt64

    private enum Word {
        static let index = 0
        static let version = 1
        static let checksum = 2
        static let next = 3
        static let payload = 4
    }

    /// A checksum of four independent sums, so that the processor can overlap their multiplications.
    ///
    /// Each step maps the word one-to-one, and also the previous sum. A page that differs in a single word therefore
    /// never has the same checksum.
    private struct Sum {
        var a: UInt64
        var b: UInt64
        var c: UInt64
        var d: UInt64

        @inline(__always)
        init(seed: UInt64, index: UInt64, version: UInt64, next: UInt64) {
            a = mixed(seed)
            b = index &* 0xD6E8_FEB8_6659_FD93
            c = version &* 0xA076_1D64_78BD_642F
            d = next &* 0xE703_7ED1_A0B4_28DB
        }

        @inline(__always)
        mutating func add(_ w: UInt64, _ x: UInt64, _ y: UInt64, _ z: UInt64) {
            a = Sum.step(a, w)
            b = Sum.step(b, x)
            c = Sum.step(c, y)
            d = Sum.step(d, z)
        }

        @inline(__always)
        private static func step(_ sum: UInt64, _ word: UInt64) -> UInt64 {
            let product = (sum ^ word) &* 0x9E37_79B9_7F4A_7C15
            return product << 29 | product >> 35
        }

        var value: UInt64 {
            @inline(__always) get { mixed(mixed(mixed(mixed(a) ^ b) ^ c) ^ d) }
        }
    }

    @inline(__always)
    private var wordCount: Int { pageSize >> 3 }

    /// Writes a whole page: the header, and a payload derived from seed, index and version.
    @inline(__always)
    func fill(_ page: UnsafeMutableRawPointer, index: Int, version: UInt32, next: UInt64) {
        let words = page.assumingMemoryBound(to: UInt64.self)
        let (index, version) = (UInt64(index), UInt64(version))
        var sum = Sum(seed: seed, index: index, version: version, next: next)
        var a = mixed(seed ^ mixed(index ^ version << 32))
        var b = a ^ 0xA5A5_A5A5_5A5A_5A5A
        var c = a &+ 0x0123_4567_89AB_CDEF
        var d = ~a
        var at = Word.payload
        while at < wordCount {
            a = PageFormat.advance(a)
            b = PageFormat.advance(b)
            c = PageFormat.advance(c)
            d = PageFormat.advance(d)
            words[at] = a.littleEndian
            words[at &+ 1] = b.littleEndian
            words[at &+ 2] = c.littleEndian
            words[at &+ 3] = d.littleEndian
            sum.add(a, b, c, d)
            at &+= 4
        }
        words[Word.index] = index.littleEndian
        words[Word.version] = version.littleEndian
        words[Word.checksum] = sum.value.littleEndian
        words[Word.next] = next.littleEndian
    }

    @inline(__always)
    private static func advance(_ word: UInt64) -> UInt64 {
        word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    }

    /// Writes index, version and checksum into a page that already has its payload and next word.
    @inline(__always)
    func seal(_ page: UnsafeMutableRawPointer, index: Int, version: UInt32) {
        let words = page.assumingMemoryBound(to: UInt64.self)
        words[Word.index] = UInt64(index).littleEndian
        words[Word.version] = UInt64(version).littleEndian
        words[Word.checksum] = checksum(page).littleEndian
    }

    /// Whether a page holds exactly what was last written to it.
    @inline(__always)
    func holds(_ page: UnsafeRawPointer, index: Int, version: UInt32) -> Bool {
        guard version != 0 else { return isZero(page) }
        let words = page.assumingMemoryBound(to: UInt64.self)
        return UInt64(littleEndian: words[Word.index]) == UInt64(index)
            && UInt64(littleEndian: words[Word.version]) == UInt64(version)
            && UInt64(littleEndian: words[Word.checksum]) == checksum(page)
    }

    /// The version in a page's header, 0 in a page that was never written; nil if it exceeds 32 bits.
    func claimedVersion(of page: UnsafeRawPointer) -> UInt32? {
        UInt32(exactly: UInt64(littleEndian: page.assumingMemoryBound(to: UInt64.self)[Word.version]))
    }

    /// The page's next word: the index of the next page, or the bucket's fill level.
    @inline(__always)
    func next(_ page: UnsafeRawPointer) -> UInt64 {
        UInt64(littleEndian: page.assumingMemoryBound(to: UInt64.self)[Word.next])
    }

    @inline(__always)
    private func checksum(_ page: UnsafeRawPointer) -> UInt64 {
        let words = page.assumingMemoryBound(to: UInt64.self)
        var sum = Sum(
            seed: seed,
            index: UInt64(littleEndian: words[Word.index]),
            version: UInt64(littleEndian: words[Word.version]),
            next: UInt64(littleEndian: words[Word.next])
        )
        var at = Word.payload
        while at < wordCount {
            sum.add(
                UInt64(littleEndian: words[at]),
                UInt64(littleEndian: words[at &+ 1]),
                UInt64(littleEndian: words[at &+ 2]),
                UInt64(littleEndian: words[at &+ 3])
            )
            at &+= 4
        }
        return sum.value
    }

    @inline(__always)
    private func isZero(_ page: UnsafeRawPointer) -> Bool {
        let words = page.assumingMemoryBound(to: UInt64.self)
        var all: UInt64 = 0
        var at = 0
        while at < wordCount {
            all |= words[at] | words[at &+ 1] | words[at &+ 2] | words[at &+ 3]
            at &+= 4
        }
        return all == 0
    }
}
