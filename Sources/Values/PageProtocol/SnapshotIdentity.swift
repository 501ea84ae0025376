/// The identity of a snapshot: the bytes of its file, and a proof of what they are.
///
/// A guest remembers the identity of the snapshot that its pages come from, and takes further pages only from a server
/// whose identity ``matches(_:)``.
package struct SnapshotIdentity: Hashable, Sendable {
    /// Bytes of the file.
    package var byteCount: UInt64
    /// What the server can prove of the file.
    package var proof: Proof

    /// A proof, of a kind that later releases may add to.
    package enum Proof: Hashable, Sendable {
        /// Kind 1: the file of one host.
        case file(FileProof)
        /// A kind that this release does not know: 1 to ``maxProofBytes`` bytes, which are compared as they are.
        case unknown(kind: UInt16, value: [UInt8])
    }

    /// How the snapshot of one identity relates to that of another.
    package enum Match: Hashable, Sendable {
        /// The snapshots have the same pages.
        case same
        /// The snapshots have different pages.
        case other
        /// The snapshots may have the same pages, and neither identity proves that they do.
        case unproven
    }

    /// Bound of a proof's value, in bytes.
    package static let maxProofBytes = 240

    /// Bound of an encoded identity, in bytes.
    package static let maxEncodedBytes = 12 + maxProofBytes

    /// An identity; an unknown proof must be inside its bound.
    package init(byteCount: UInt64, proof: Proof) {
        self.byteCount = byteCount
        self.proof = proof
    }

    /// How another identity's snapshot relates to this one's.
    package func matches(_ other: SnapshotIdentity) -> Match {
        guard byteCount == other.byteCount else { return .other }
        return switch (proof, other.proof) {
        case (.file(let mine), .file(let theirs)): mine.matches(theirs)
        case (.unknown(let kind, let mine), .unknown(let other, let theirs)) where kind == other:
            mine == theirs ? .same : .other
        case (.file, .unknown), (.unknown, .file), (.unknown, .unknown): .unproven
        }
    }

    /// Returns the identity to remember after this one, once a server has announced another one of the same snapshot.
    ///
    /// The newer identity counts, since only that one can match the server's next. A digest of all of the file is kept
    /// from the older one: the file may be served without one for a while.
    package func renewed(by newer: SnapshotIdentity) -> SnapshotIdentity {
        guard case .file(let mine) = proof, case .file(var theirs) = newer.proof else { return newer }
        theirs.full = theirs.full ?? mine.full
        return SnapshotIdentity(byteCount: newer.byteCount, proof: .file(theirs))
    }
}

extension SnapshotIdentity {
    /// The identity as the payload of SNAPSHOT: at most ``maxEncodedBytes`` bytes.
    package var encoded: [UInt8] {
        var writer = WireWriter(.snapshot)
        write(to: &writer)
        return Array(writer.finish().dropFirst(Wire.headerByteCount))
    }

    /// Reads an identity that ``encoded`` has made.
    ///
    /// - Throws: the first fault found.
    package init(encoded bytes: RawSpan) throws(ProtocolError) {
        self = try WireReader.readAll(.snapshot, bytes) { (reader) throws(ProtocolError) in
            try SnapshotIdentity(from: &reader)
        }
    }

    func write(to writer: inout WireWriter) {
        writer.append(byteCount)
        switch proof {
        case .file(let file):
            writer.append(FileProof.kind)
            writer.append(UInt16(file.encodedByteCount))
            file.write(to: &writer)
        case .unknown(let kind, let value):
            precondition((1...SnapshotIdentity.maxProofBytes).contains(value.count), "an unknown proof is in its bound")
            writer.append(kind)
            writer.append(UInt16(value.count))
            writer.append(value)
        }
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
        byteCount = try reader.read("bytes of the file")
        let kind: UInt16 = try reader.read("kind of the proof")
        let length: UInt16 = try reader.read("length of the proof")
        let allowed = 1...UInt64(SnapshotIdentity.maxProofBytes)
        try reader.require(UInt64(length), field: "length of the proof", in: allowed)
        if kind == FileProof.kind {
            proof = .file(try FileProof(from: &reader, length: length))
        } else {
            proof = .unknown(kind: kind, value: Array(try reader.readBytes(Int(length), "proof")))
        }
    }
}
