import LinuxSystem
import OpenSSL
import PageProtocol
import Synchronization

/// Digests over the whole pages of a file; a last, partial page is left out, and is served to nobody.
///
/// A digest is SHA-256 over the name of its form, the file's size as a little-endian u64, and the SHA-256 of each piece
/// in order. Holes count as zeros.
extension ContentDigest {
    /// Bytes of a piece of the full digest, and of the first and the last piece of the spread digest.
    private static let pieceByteCount = 1 << 20
    /// The most pages between the first and the last MiB that the spread digest covers.
    private static let spreadPageCount = 256
    private static let pageSize = 4096
    /// The most threads that make a full digest.
    private static let mostThreads = 8

    /// The pieces of the spread digest: the first and the last MiB, and pages at equal distances between them.
    ///
    /// - Parameter byteCount: bytes of the file's whole pages.
    static func spreadPieces(of byteCount: Int) -> [Range<Int>] {
        guard byteCount > 2 * pieceByteCount else { return fullPieces(of: byteCount) }
        let between = byteCount / pageSize - 2 * pieceByteCount / pageSize
        let count = min(between, spreadPageCount)
        let pages = (0..<count).map { index in
            let begin = pieceByteCount + between * index / count * pageSize
            return begin..<begin + pageSize
        }
        return [0..<pieceByteCount] + pages + [byteCount - pieceByteCount..<byteCount]
    }

    /// The pieces of the full digest: all of the file, by the MiB.
    ///
    /// - Parameter byteCount: bytes of the file's whole pages.
    static func fullPieces(of byteCount: Int) -> [Range<Int>] {
        stride(from: 0, to: byteCount, by: pieceByteCount).map { $0..<min(byteCount, $0 + pieceByteCount) }
    }

    /// Makes the digest over a spread of pages, which reads at most 3 MiB of the file.
    static func spread(of file: MappedFile) throws(SystemError) -> ContentDigest {
        let pieces = spreadPieces(of: file.wholePagesByteCount)
        // Otherwise, each piece would wait for the disk alone.
        for piece in pieces { file.readAhead(at: piece.lowerBound, byteCount: piece.count) }
        return try combine("spread", file, digests(of: pieces[...], in: file, data: file.findData()))
    }

    /// Makes the digest over all pages, on several threads.
    static func full(of file: MappedFile) throws(SystemError) -> ContentDigest {
        let pieces = fullPieces(of: file.wholePagesByteCount)
        let data = try file.findData()
        let share = max(1, (pieces.count - 1) / min(Processors.online, mostThreads) + 1)
        let shares = stride(from: 0, to: pieces.count, by: share).map { pieces[$0..<min(pieces.count, $0 + share)] }
        let results = Mutex([Result<[[UInt8]], SystemError>?](repeating: nil, count: shares.count))
        let threads = ThreadGroup()
        for (index, share) in shares.enumerated() {
            try threads.run("digest") {
                let result = Result { () throws(SystemError) in try digests(of: share, in: file, data: data) }
                results.withLock { $0[index] = result }
            }
        }
        threads.join()
        var all: [[UInt8]] = []
        for result in results.withLock(\.self) {
            if let result { all += try result.get() }
        }
        return try combine("full", file, all)
    }

    /// The digest of each piece of a file.
    ///
    /// - Parameter data: the pages that lie in no hole.
    private static func digests(
        of pieces: ArraySlice<Range<Int>>,
        in file: MappedFile,
        data: PageBitmap
    ) throws(SystemError) -> [[UInt8]] {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceByteCount, alignment: pageSize)
        defer { buffer.deallocate() }
        var zeros: [Int: [UInt8]] = [:]
        var all: [[UInt8]] = []
        all.reserveCapacity(pieces.count)
        for (index, piece) in zip(pieces.indices, pieces) {
            let isHole = data.isClear(piece.lowerBound / pageSize..<piece.upperBound / pageSize)
            if isHole, let digest = zeros[piece.count] {
                all.append(digest)
                continue
            }
            // The next piece comes from the disk while this one is hashed.
            if index + 1 < pieces.endIndex {
                file.readAhead(at: pieces[index + 1].lowerBound, byteCount: pieces[index + 1].count)
            }
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<piece.count])
            try read(piece, of: file, data: data, into: part)
            let digest = try SHA256.digest(of: UnsafeRawBufferPointer(part).bytes)
            if isHole { zeros[piece.count] = digest }
            all.append(digest)
        }
        return all
    }

    /// Reads a piece of a file, whose holes are left out so that the kernel keeps no pages for them.
    private static func read(
        _ piece: Range<Int>,
        of file: MappedFile,
        data: PageBitmap,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) {
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
        var page = piece.lowerBound / pageSize
        let end = piece.upperBound / pageSize
        while page < end {
            let begin = page
            while page < end, data.contains(page) { page += 1 }
            let place = begin * pageSize - piece.lowerBound
            let run = UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + (page - begin) * pageSize])
            // Pages that the file no longer has count as zeros; the caller notices that the size has changed.
            if page > begin { _ = try file.read(at: begin * pageSize, into: run) }
            page += 1
        }
    }

    private static func combine(
        _ form: String,
        _ file: MappedFile,
        _ digests: [[UInt8]]
    ) throws(SystemError) -> ContentDigest {
        let size = withUnsafeBytes(of: UInt64(file.byteCount).littleEndian) { Array($0) }
        let parts = Array("pageferry \(form)".utf8) + size + digests.joined()
        guard let digest = ContentDigest(try SHA256.digest(of: parts.span.bytes)) else {
            preconditionFailure("SHA-256 has 32 bytes")
        }
        return digest
    }
}
