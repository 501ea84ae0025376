import Foundation

/// A file of a test's own, all holes but for the pages that are written into it; gone when the object is.
public final class SparseFile: Sendable {
    /// Bytes in a page.
    public static let pageSize = 4096
    /// Where it is.
    public let path: String
    private let handle: FileHandle

    /// Makes a file of zeros.
    public init(in folder: String = "/tmp", byteCount: Int) throws {
        path = "\(folder)/pft-snapshot-\(UInt64.random(in: 0...UInt64.max))"
        guard FileManager.default.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o600]),
            let handle = FileHandle(forUpdatingAtPath: path)
        else { throw CocoaError(.fileWriteUnknown) }
        self.handle = handle
        try handle.truncate(atOffset: UInt64(byteCount))
    }

    deinit {
        // Nobody is left to be told of a file that cannot be removed.
        try? FileManager.default.removeItem(atPath: path)
    }

    /// What ``write(pages:shiftedBy:)`` writes into a page.
    public static func content(ofPage page: Int) -> [UInt8] {
        (0..<pageSize / 8).flatMap { word in
            let value = UInt64(page) << 20 | UInt64(word) << 1 | 1
            return (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
    }

    /// Fills pages, each with other bytes, none of them zeros: those of the page of its number, or of one further on.
    public func write(pages: some Sequence<Int>, shiftedBy shift: Int = 0) throws {
        for page in pages {
            try handle.seek(toOffset: UInt64(page * SparseFile.pageSize))
            try handle.write(contentsOf: SparseFile.content(ofPage: page + shift))
        }
    }

    /// What it holds, read as other programs do.
    public func bytes(_ range: Range<Int>) throws -> [UInt8] {
        let reading = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        try reading.seek(toOffset: UInt64(range.lowerBound))
        return [UInt8](try reading.read(upToCount: range.count) ?? Data())
    }

    /// Makes it longer or shorter.
    public func resize(to byteCount: Int) throws {
        try handle.truncate(atOffset: UInt64(byteCount))
    }

    /// Bytes that it takes of its disk, or of memory on a tmpfs.
    public var takenBytes: Int {
        var status = stat()
        return fstat(handle.fileDescriptor, &status) == 0 ? Int(status.st_blocks) * 512 : -1
    }

    /// Puts its pages on its disk and out of memory.
    public func evict() throws {
        try handle.synchronize()
        guard posix_fadvise(handle.fileDescriptor, 0, 0, POSIX_FADV_DONTNEED) == 0 else {
            throw CocoaError(.fileReadUnknown)
        }
    }

    /// The pages of a part of it that are in memory.
    public func pagesInMemory(_ pages: Range<Int>) throws -> [Int] {
        let byteCount = pages.count * SparseFile.pageSize
        let offset = pages.lowerBound * SparseFile.pageSize
        let mapped = mmap(nil, byteCount, PROT_READ, MAP_SHARED, handle.fileDescriptor, offset)
        guard let mapped, mapped != MAP_FAILED else { throw CocoaError(.fileReadUnknown) }
        defer { munmap(mapped, byteCount) }
        var present = [UInt8](repeating: 0, count: pages.count)
        guard mincore(mapped, byteCount, &present) == 0 else { throw CocoaError(.fileReadUnknown) }
        return present.indices.filter { present[$0] & 1 != 0 }.map { $0 + pages.lowerBound }
    }
}
