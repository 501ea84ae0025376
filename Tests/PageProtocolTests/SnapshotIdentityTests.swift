import PageProtocol
import Testing

@Suite("The identity of a snapshot")
struct SnapshotIdentityTests {
    private static let times = Samples.times
    private static let later = FileProof.Times(modified: times.modified, changed: times.changed + 5)
    private let digest = Samples.digest(1)
    private let full = Samples.digest(9)

    private func identity(
        device: UInt64 = 1,
        inode: UInt64 = 2,
        times: [FileProof.Times] = [times],
        byteCount: UInt64 = 1 << 20,
        spread: ContentDigest? = nil,
        full: ContentDigest? = nil
    ) -> SnapshotIdentity {
        let proof = FileProof(device: device, inode: inode, times: times, spread: spread ?? digest, full: full)
        return SnapshotIdentity(byteCount: byteCount, proof: .file(proof))
    }

    /// Identities whose file differs from the own one in one number or time.
    private func others(full: ContentDigest? = nil) -> [SnapshotIdentity] {
        let touched = FileProof.Times(modified: Self.times.modified + 1, changed: Self.times.changed)
        return [
            identity(device: 3, full: full), identity(inode: 3, full: full), identity(times: [touched], full: full),
            identity(times: [Self.later], full: full),
        ]
    }

    @Test("is the same for a file that nobody has changed")
    func sameFile() {
        #expect(identity().matches(identity()) == .same)
        #expect(identity(full: full).matches(identity()) == .same)
        #expect(identity().matches(identity(full: full)) == .same)
    }

    @Test("is another one if the size or a digest differs, whatever the file's numbers and times are")
    func otherContent() {
        #expect(identity().matches(identity(byteCount: 1 << 20 + 4096)) == .other)
        #expect(identity().matches(identity(spread: Samples.digest(2))) == .other)
        #expect(identity(full: full).matches(identity(spread: Samples.digest(2), full: full)) == .other)
        #expect(identity(full: full).matches(identity(full: Samples.digest(8))) == .other)
    }

    @Test("is not proved by a digest of a few pages, if the file is another one or was changed")
    func unproven() {
        for other in others() {
            #expect(identity().matches(other) == .unproven)
            #expect(identity(full: full).matches(other) == .unproven)
            #expect(other.matches(identity(full: full)) == .unproven)
        }
    }

    @Test("is the same if the file had times before that the other one knows")
    func formerTimes() {
        let renewed = identity(times: [Self.later, Self.times])
        #expect(identity().matches(renewed) == .same)
        #expect(renewed.matches(identity(times: [Self.later])) == .same)
        #expect(identity(inode: 3).matches(renewed) == .unproven)
        #expect(identity(times: [Self.later]).matches(identity()) == .unproven)
    }

    @Test("is proved by a digest of all pages for any file")
    func fullDigest() {
        for other in others(full: full) { #expect(identity(full: full).matches(other) == .same) }
    }

    @Test("is compared byte by byte if its proof is of an unknown kind")
    func unknownKinds() {
        let later = Samples.laterIdentity()
        #expect(later.matches(later) == .same)
        #expect(later.matches(Samples.laterIdentity(byteCount: 239)) == .other)
        #expect(later.matches(Samples.laterIdentity(kind: 3)) == .unproven)
        #expect(later.matches(SnapshotIdentity(byteCount: 8192, proof: later.proof)) == .other)
        #expect(later.matches(identity(byteCount: 4096)) == .unproven)
        #expect(identity(byteCount: 4096).matches(later) == .unproven)
    }

    @Test("takes new times when it is renewed, and keeps the digest of all pages")
    func renewal() {
        let renewed = identity(times: [Self.later, Self.times])
        #expect(identity().renewed(by: renewed) == renewed)
        let proved = identity(times: [Self.later, Self.times], full: full)
        #expect(identity(full: full).renewed(by: renewed) == proved)
        #expect(identity().renewed(by: proved) == proved)
        #expect(identity().renewed(by: Samples.laterIdentity()) == Samples.laterIdentity())
    }

    @Test("survives its encoding", arguments: [0, 1, 2, 3])
    func encoding(index: Int) throws {
        let identities = [
            Samples.identity, Samples.fullIdentity, Samples.laterIdentity(), Samples.laterIdentity(byteCount: 1),
        ]
        let encoded = identities[index].encoded
        #expect(encoded.count <= SnapshotIdentity.maxEncodedBytes)
        #expect(try SnapshotIdentity(encoded: encoded.span.bytes) == identities[index])
    }

    /// A payload of SNAPSHOT, encoded without checks.
    private func payload(kind: UInt16, length: UInt16, _ value: [UInt8]) -> [UInt8] {
        bytes(UInt64(4096)) + bytes(kind) + bytes(length) + value
    }

    @Test("is refused if its proof is empty, too long, cut off, or of a length that its kind does not have")
    func bounds() {
        func expectOutOfBounds(_ payload: [UInt8], _ field: String, _ found: UInt64, _ allowed: ClosedRange<UInt64>) {
            #expect(
                throws: ProtocolError.outOfBounds(frame: .snapshot, field: field, found: found, allowed: allowed)
            ) { try decodeControl(.snapshot, payload) }
        }
        let zeros = [UInt8](repeating: 0, count: 240)
        expectOutOfBounds(payload(kind: 2, length: 0, [0]), "length of the proof", 0, 1...240)
        expectOutOfBounds(payload(kind: 2, length: 241, zeros), "length of the proof", 241, 1...240)
        /// The value of a file's proof with these counts.
        func file(times: UInt8, digests: UInt8, _ byteCount: Int) -> [UInt8] {
            Array((zeros.prefix(16) + [times, digests] + zeros).prefix(byteCount))
        }
        for (times, digests, byteCount) in [(1, 0, 66), (8, 1, 210)] as [(UInt8, UInt8, Int)] {
            let value = file(times: times, digests: digests, byteCount)
            #expect(throws: Never.self) {
                try decodeControl(.snapshot, payload(kind: 1, length: UInt16(byteCount), value))
            }
            let (found, allowed) = (UInt64(byteCount + 1), UInt64(byteCount)...UInt64(byteCount))
            expectOutOfBounds(
                payload(kind: 1, length: UInt16(byteCount + 1), value + [0]),
                "length of the file's proof",
                found,
                allowed
            )
        }
        let counts = "number of times"
        expectOutOfBounds(payload(kind: 1, length: 66, file(times: 0, digests: 0, 66)), counts, 0, 1...8)
        expectOutOfBounds(payload(kind: 1, length: 210, file(times: 9, digests: 0, 210)), counts, 9, 1...8)
        let flag = "number of full digests"
        expectOutOfBounds(payload(kind: 1, length: 66, file(times: 1, digests: 2, 66)), flag, 2, 0...1)
        #expect(throws: ProtocolError.truncated(frame: .snapshot, field: "proof", found: 8, needed: 9)) {
            try decodeControl(.snapshot, payload(kind: 2, length: 9, Array(zeros.prefix(8))))
        }
        #expect(throws: ProtocolError.trailingBytes(frame: .snapshot, count: 1)) {
            try decodeControl(.snapshot, payload(kind: 2, length: 7, Array(zeros.prefix(8))))
        }
        #expect(throws: ProtocolError.lengthOutOfBounds(frame: .snapshot, found: 253, allowed: 13...252)) {
            try decodeControl(.snapshot, payload(kind: 2, length: 241, zeros + [0]))
        }
    }
}
