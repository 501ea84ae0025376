import Foundation

/// A temporary file of one test that has holes except for written pages; removed with the object.
package final class SparseFile: Sendable {
    /// Bytes in a page.
    package static let pageSize = 4096
    /// The path of the file.
    package let path: String
    private let handle: FileHandle

    /// Makes a file of zeros.
    package init(in folder: String = "/tmp", byteCount: Int) throws {
        path = "\(folder)/pft-snapshot-\(UInt64.random(in: 0...UInt64.max))"
        guard FileManager.default.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o600]),
            let handle = FileHandle(forUpdatingAtPath: path)
        else { throw CocoaError(.fileWriteUnknown) }
        self.handle = handle
        try handle.truncate(atOffset: UInt64(byteCount))
    }

    deinit {
        // An error cannot be reported from here; the file then stays.
        try? FileManager.default.removeItem(atPath: path)
        // Most files have no copy.
        try? FileManager.default.removeItem(atPath: "\(path)-copy")
    }

    /// The bytes that ``write(pages:shiftedBy:)`` writes into a page.
    package static func content(ofPage page: Int) -> [UInt8] {
        let words = (0..<pageSize / 8).map { (UInt64(page) << 20 | UInt64($0) << 1 | 1).littleEndian }
        return words.withUnsafeBytes { Array($0) }
    }

    /// Fills each page with the ``content(ofPage:)`` of its number plus `shift`, which no other page has.
    package func write(pages: some Sequence<Int>, shiftedBy shift: Int = 0) throws {
        for page in pages {
            try handle.seek(toOffset: UInt64(page * SparseFile.pageSize))
            try handle.write(contentsOf: SparseFile.content(ofPage: page + shift))
        }
    }

    /// Closes the file: the kernel knows from here on that nobody writes to it.
    ///
    /// No method that changes the file may be called afterwards.
    package func finishWriting() throws {
        try handle.close()
    }

    /// Makes a copy of the file beside it, which is removed with this object.
    package func copy() throws -> String {
        let copy = "\(path)-copy"
        try FileManager.default.copyItem(atPath: path, toPath: copy)
        return copy
    }

    /// The content of the file, read as other programs read it.
    package func bytes(_ range: Range<Int>) throws -> [UInt8] {
        let reading = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        try reading.seek(toOffset: UInt64(range.lowerBound))
        return [UInt8](try reading.read(upToCount: range.count) ?? Data())
    }

    /// Makes the file longer or shorter.
    package func resize(to byteCount: Int) throws {
        try handle.truncate(atOffset: UInt64(byteCount))
    }

    /// Bytes that the file takes on its disk, or in memory on a tmpfs.
    package var takenBytes: Int {
        var status = stat()
        return fstat(handle.fileDescriptor, &status) == 0 ? Int(status.st_blocks) * 512 : -1
    }

    /// Writes the file's pages to the disk and removes them from memory.
    package func evict() throws {
        try handle.synchronize()
        guard posix_fadvise(handle.fileDescriptor, 0, 0, POSIX_FADV_DONTNEED) == 0 else {
            throw CocoaError(.fileReadUnknown)
        }
    }

    /// The pages of a part of the file that are in memory.
    package func pagesInMemory(_ pages: Range<Int>) throws -> [Int] {
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
