import Glibc
import LinuxSystem

/// The lines of a file in memory.
struct FileLines: Sendable {
    let path: String
    private let bytes: [UInt8]
    /// The offset of each line, and one more entry for the line that would follow the last.
    private let starts: [Int]

    init(reading path: String) throws(WorkloadError) {
        self.path = path
        bytes = try contents(ofFile: path)
        var starts: [Int] = [0]
        bytes.withUnsafeBytes { bytes in
            var at = 0
            while at < bytes.count, let base = bytes.baseAddress {
                guard let end = memchr(base + at, 0x0A, bytes.count - at) else { break }
                at = UnsafeRawPointer(end) - base + 1
                starts.append(at)
            }
        }
        // If the last line has no newline, the next line would begin after the missing newline.
        if starts.last != bytes.count { starts.append(bytes.count + 1) }
        guard (2...LineFile.maximumLineCount).contains(starts.count) else {
            throw WorkloadError(
                "cannot load \(path): it has \(starts.count - 1) lines; give a file of 1 to "
                    + "\(LineFile.maximumLineCount - 1) lines"
            )
        }
        self.starts = starts
    }

    var count: Int { starts.count - 1 }

    /// The number of bytes in a line, without the newline.
    func length(ofLine line: Int) -> Int {
        starts[line + 1] - starts[line] - 1
    }

    /// Calls `body` with every piece of a line, in order, and its key.
    func forEachPiece(
        ofLine line: Int,
        _ body: (_ key: UInt64, _ piece: UnsafeRawBufferPointer, _ continues: Bool) -> Void
    ) {
        let range = starts[line]..<starts[line + 1] - 1
        bytes.withUnsafeBytes { bytes in
            var piece = 0
            var at = range.lowerBound
            repeat {
                let end = min(at + KeyValueEntry.maximumPiece, range.upperBound)
                let key = KeyValueEntry.key(line: line, piece: piece)
                body(key, UnsafeRawBufferPointer(rebasing: bytes[at..<end]), end < range.upperBound)
                (at, piece) = (end, piece + 1)
            } while at < range.upperBound
        }
    }

    /// The path, the number of lines and their digest, by which another host verifies the lines.
    var summary: LineFile {
        var all = LineDigest()
        for line in 0..<count {
            forEachPiece(ofLine: line) { key, piece, _ in all.add(pieceDigest: digest(of: piece, seed: key)) }
        }
        return LineFile(path: path, lineCount: count, digest: all.value)
    }

    /// The number of bytes that a line takes in a table.
    func tableBytes(ofLine line: Int) -> Int {
        var rest = length(ofLine: line)
        var bytes = KeyValueEntry.size(valueLength: min(rest, KeyValueEntry.maximumPiece))
        rest -= KeyValueEntry.maximumPiece
        while rest > 0 {
            bytes += KeyValueEntry.size(valueLength: min(rest, KeyValueEntry.maximumPiece))
            rest -= KeyValueEntry.maximumPiece
        }
        return bytes
    }
}

/// The largest file whose lines can be loaded: 64 GiB.
private let maximumFileBytes = 1 << 36

/// Reads a regular file; any other kind of file may never end, or may block.
func contents(ofFile path: String) throws(WorkloadError) -> [UInt8] {
    do throws(SystemError) {
        return try WholeFile.read(path, atMost: maximumFileBytes)
    } catch {
        throw WorkloadError("cannot read \(path): \(error.errno)" + (error.advice.map { "; \($0)" } ?? ""))
    }
}
