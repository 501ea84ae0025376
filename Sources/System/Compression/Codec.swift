/// A format of compressed bytes, with the library that reads and writes it.
package enum Codec: String, CaseIterable, Codable, Sendable {
    /// One block of liblz4: fast, and shrinks little.
    case lz4
    /// One frame of libzstd, which says how many bytes it inflates to: slower, and shrinks more.
    case zstd
}

/// How a source compresses the pages that it pushes; the raw values are those of `--compress`.
package enum PushCompression: String, CaseIterable, Codable, Sendable {
    /// Pages go as they are.
    case none
    /// Every run of pages that shrinks is compressed by liblz4.
    case lz4
    /// Every run of pages that shrinks is compressed by libzstd.
    case zstd
    /// The source measures the link and the codecs, and uses what moves the most pages per second.
    case auto

    /// The codecs that may be used, of those that the destination inflates.
    package func codecs(of inflated: Set<Codec>) -> [Codec] {
        let wanted: [Codec] =
            switch self {
            case .none: []
            case .lz4: [.lz4]
            case .zstd: [.zstd]
            case .auto: Codec.allCases
            }
        return wanted.filter { inflated.contains($0) }
    }
}
