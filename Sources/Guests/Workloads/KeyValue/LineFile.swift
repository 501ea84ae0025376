/// The identity of a file whose lines were loaded into a table, by which a host without the file verifies the lines.
package struct LineFile: Codable, Hashable, Sendable {
    /// The most lines, which fit into the 40 bits that a key has for the number of a line.
    static let maximumLineCount = 1 << 31

    /// The path on the host where the workload was made.
    package var path: String
    /// The number of lines, including a last line without a newline.
    package var lineCount: Int
    /// A digest of all lines, in order.
    package var digest: UInt64

    /// Reads a file, and computes its identity.
    ///
    /// - Throws: ``WorkloadError`` if the file cannot be read, or has no lines or too many.
    package init(reading path: String) throws(WorkloadError) {
        self = try FileLines(reading: path).summary
    }

    init(path: String, lineCount: Int, digest: UInt64) {
        self.path = path
        self.lineCount = lineCount
        self.digest = digest
    }
}

/// The digest of all lines, built piece by piece in order.
struct LineDigest {
    private(set) var value: UInt64 = 0

    @inline(__always)
    mutating func add(pieceDigest: UInt64) {
        value = mixed(value ^ pieceDigest)
    }
}
