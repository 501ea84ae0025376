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

/// What became of a file's lines: the outcome of looking every one of them up.
public struct LineVerification: Hashable, Codable, Sendable {
    /// Lines that were loaded.
    public var lineCount: Int
    /// Lines that the table still has, whole and undamaged.
    public var linesFound: Int
    /// Whether the digest of all lines, in order, is that of the file.
    public var digestMatches: Bool

    /// Makes an outcome.
    public init(lineCount: Int, linesFound: Int, digestMatches: Bool) {
        self.lineCount = lineCount
        self.linesFound = linesFound
        self.digestMatches = digestMatches
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
