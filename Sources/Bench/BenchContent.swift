import LinuxSystem

/// Makes pages that are like text or like the heap of a program, so that they shrink as such pages do.
struct BenchContent {
    private let content: BenchSetup.Content
    private var random = SystemRandomNumberGenerator()

    init(_ content: BenchSetup.Content) {
        self.content = content
    }

    /// Fills a region; each page begins with its number plus 1, as 64 bits.
    consuming func fill(_ region: MemoryRegion) {
        let words = (0..<4096).map { _ in word() }
        for page in 0..<region.pageCount {
            let bytes = UnsafeMutableRawBufferPointer(start: region.page(page), count: region.pageSize)
            switch content {
            case .binary: fillHeap(bytes)
            case .text, .random, .zeros: fillText(bytes, of: words)
            }
            bytes.storeBytes(of: UInt64(page) + 1, as: UInt64.self)
        }
    }

    private mutating func word() -> [UInt8] {
        (0..<Int.random(in: 2...10, using: &random)).map { _ in UInt8.random(in: 97...122, using: &random) } + [32]
    }

    /// Fills a page with words, of which those at the beginning of the list are frequent, and with numbers.
    private mutating func fillText(_ page: UnsafeMutableRawBufferPointer, of words: [[UInt8]]) {
        var place = 0
        while place < page.count {
            let choice = Double.random(in: 0..<1, using: &random)
            let next =
                choice < 0.05
                ? Array("\(Int.random(in: 0...99_999, using: &random))\n".utf8)
                : words[Int(Double(words.count) * choice * choice * choice)]
            for byte in next where place < page.count {
                page[place] = byte
                place += 1
            }
        }
    }

    /// Fills a page with addresses of one arena, small numbers and zeros.
    private mutating func fillHeap(_ page: UnsafeMutableRawBufferPointer) {
        for place in stride(from: 0, to: page.count, by: 8) {
            let value: UInt64 =
                switch UInt64.random(in: 0..<8, using: &random) {
                case 0, 1: 0x7f3a_0000_0000 | UInt64.random(in: 0..<1 << 24, using: &random) << 4
                case 2, 3: UInt64.random(in: 0..<4096, using: &random)
                case 4: .random(in: 0...UInt64.max, using: &random)
                default: 0
                }
            page.storeBytes(of: value, toByteOffset: place, as: UInt64.self)
        }
    }
}
