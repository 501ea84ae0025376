/// What a server can prove of a snapshot's file: digests of its content, and what its host's kernel says of it.
///
/// Two proofs of files of the same size compare by these rules, of which the first that applies decides:
///
/// 1. The spread digests differ: the files have different pages.
/// 2. Both have a full digest: the files have the same pages if those are equal, and different pages if not.
/// 3. Device and inode are equal, and both know the file with the same modification time and change time: this is the
///    same file, and nobody has changed it.
/// 4. Nothing is proved. A guest must not mix the pages of the two.
///
/// A spread digest alone never proves that pages are the same: a snapshot that was taken again into the same file may
/// differ in any page between those that the digest covers. The change time is set by the kernel only, so a file that
/// was changed and got its old modification time back does not pass for the old one.
///
/// A server whose file gets new times while it is served need not fall under rule 4. The server proves by its kernel or
/// by a full digest that only the times have changed. From then on it names the earlier times beside the new ones, and
/// tells the new ones to the guests that are connected, so that they know the file after a restart of the server.
package struct FileProof: Hashable, Sendable {
    /// The times of a file; while they are the same, so is the file.
    package struct Times: Hashable, Sendable {
        /// When the file's content was last modified, in nanoseconds since 1970-01-01 00:00 UTC.
        package var modified: Int64
        /// When the file's content or attributes were last changed, in nanoseconds since 1970-01-01 00:00 UTC.
        package var changed: Int64

        /// The times of a file.
        package init(modified: Int64, changed: Int64) {
            self.modified = modified
            self.changed = changed
        }
    }

    /// The most times that a proof holds.
    package static let maxTimes = 8

    /// The number of the device that the file lies on.
    package var device: UInt64
    /// The file's number on its device.
    package var inode: UInt64
    /// The times that the file has had with this content, the newest first: 1 to ``maxTimes``.
    package var times: [Times]
    /// The digest over the first and the last MiB and a spread of pages between them.
    package var spread: ContentDigest
    /// The digest over all pages; nil if none was made.
    package var full: ContentDigest?

    /// A proof of a file, of whose times the first ``maxTimes`` are kept; there must be one.
    package init(device: UInt64, inode: UInt64, times: [Times], spread: ContentDigest, full: ContentDigest?) {
        precondition(!times.isEmpty, "a file has times")
        self.device = device
        self.inode = inode
        self.times = Array(times.prefix(FileProof.maxTimes))
        self.spread = spread
        self.full = full
    }

    /// How another file's pages relate to those of this file, which has the same size.
    package func matches(_ other: FileProof) -> SnapshotIdentity.Match {
        guard spread == other.spread else { return .other }
        if let full, let theirs = other.full { return full == theirs ? .same : .other }
        let isSameFile = device == other.device && inode == other.inode && times.contains { other.times.contains($0) }
        return isSameFile ? .same : .unproven
    }
}

extension FileProof {
    static let kind: UInt16 = 1

    var encodedByteCount: Int { 18 + 16 * times.count + ContentDigest.byteCount * (full == nil ? 1 : 2) }

    func write(to writer: inout WireWriter) {
        writer.append(device)
        writer.append(inode)
        writer.append(UInt8(times.count))
        writer.append(UInt8(full == nil ? 0 : 1))
        for time in times {
            writer.append(time.modified)
            writer.append(time.changed)
        }
        writer.append(spread.bytes)
        if let full { writer.append(full.bytes) }
    }

    init(from reader: inout WireReader, length: UInt16) throws(ProtocolError) {
        device = try reader.read("device")
        inode = try reader.read("inode")
        let count: UInt8 = try reader.read("number of times")
        try reader.require(UInt64(count), field: "number of times", in: 1...UInt64(FileProof.maxTimes))
        let digests: UInt8 = try reader.read("number of full digests")
        try reader.require(UInt64(digests), field: "number of full digests", in: 0...1)
        times = []
        for _ in 0..<count {
            let modified: Int64 = try reader.read("modification time")
            times.append(Times(modified: modified, changed: try reader.read("change time")))
        }
        spread = try ContentDigest(from: &reader, "spread digest")
        full = digests == 1 ? try ContentDigest(from: &reader, "full digest") : nil
        let expected = UInt64(encodedByteCount)
        try reader.require(UInt64(length), field: "length of the file's proof", in: expected...expected)
    }
}

/// A SHA-256 digest over pages of a snapshot's file.
package struct ContentDigest: Hashable, Sendable {
    /// Bytes of a digest.
    package static let byteCount = 32

    /// The digest's bytes, of which there are ``byteCount``.
    package let bytes: [UInt8]

    /// Takes the bytes of a digest; nil unless there are ``byteCount``.
    package init?(_ bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes)
        guard self.bytes.count == ContentDigest.byteCount else { return nil }
    }

    init(from reader: inout WireReader, _ field: String) throws(ProtocolError) {
        bytes = Array(try reader.readBytes(ContentDigest.byteCount, field))
    }
}
