/// Which file a snapshot's pages come from: as long as it says the same, they are the same pages.
public struct SnapshotIdentity: Hashable, Sendable {
    /// Bytes of the file.
    public var byteCount: UInt64
    /// When it was last modified, in nanoseconds since 1970-01-01 00:00 UTC.
    public var modified: Int64

    /// Names a file by its size and time.
    public init(byteCount: UInt64, modified: Int64) {
        self.byteCount = byteCount
        self.modified = modified
    }
}

extension SnapshotIdentity {
    func write(to writer: inout WireWriter) {
        writer.append(byteCount)
        writer.append(modified)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
        byteCount = try reader.read("bytes of the file")
        modified = try reader.read("modification time")
    }
}
