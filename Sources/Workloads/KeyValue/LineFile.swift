/// A file whose lines are loaded into a table: what must be known to recognise them on another host, without it.
public struct LineFile: Codable, Hashable, Sendable {
    /// A key has 40 bits for the line's number.
    static let maximumLineCount = 1 << 31

    /// Where the file is on the host where the workload was made.
    public var path: String
    /// Lines in it. A last line without an end counts.
    public var lineCount: Int
    /// A digest of all lines, in order.
    public var digest: UInt64

    /// Reads a file and sums it up.
    ///
    /// - Throws: ``WorkloadError`` when it cannot be read or has no line.
    public init(reading path: String) throws(WorkloadError) {
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
