package import LinuxSystem
package import PageProtocol
import Synchronization

/// The memory file of a snapshot, with a proof of what it holds.
package final class SnapshotFile: Sendable {
    /// The mapped file.
    package let mapped: MappedFile
    private let spread: ContentDigest
    private let full: ContentDigest?
    /// What is known of the file, with the latest times that were proved.
    private let known: Mutex<FileProof>

    /// Opens a file and makes its digests.
    ///
    /// - Parameters:
    ///   - path: a regular file of at least 4096 bytes.
    ///   - isProvedFully: whether a digest over all pages is made, which reads all of the file.
    /// - Throws: `SystemError` if the file cannot be read, `FileChanged` if the file changes meanwhile.
    package init(_ path: String, isProvedFully: Bool = false) throws {
        mapped = try MappedFile(path)
        spread = try .spread(of: mapped)
        full = isProvedFully ? try .full(of: mapped) : nil
        let version = mapped.version
        let times = FileProof.Times(modified: version.modified, changed: version.changed)
        known = Mutex(
            FileProof(device: version.device, inode: version.inode, times: [times], spread: spread, full: full)
        )
        try mapped.requireUnchanged()
    }

    /// The path by which the file was opened.
    package var path: String { mapped.path }
    /// Bytes of the file.
    package var byteCount: Int { mapped.byteCount }

    /// The identity of the snapshot, with the latest times of its file that were proved; does not wait for a proof.
    package var identity: SnapshotIdentity {
        SnapshotIdentity(byteCount: UInt64(byteCount), proof: .file(known.withLock(\.self)))
    }

    /// Whether the content is known to be the one that was opened, without a new proof; does not wait for one.
    package var isProved: Bool {
        do throws(FileChanged) {
            try mapped.requireUnchanged()
            return true
        } catch {
            // The error may be about the times only; `renew` finds it again if it is about more.
            return false
        }
    }

    /// Proves the content of the file anew after its times have changed.
    ///
    /// If the kernel proves that nobody has written to the file, only the spread digest is made again. If not, the full
    /// digest must be the same, which takes as long as at the start.
    ///
    /// - Throws: the change of the file, or that nothing proves its content.
    package func renew() throws(FileChanged) {
        try mapped.renew { isWitnessed in
            do throws(SystemError) {
                guard try ContentDigest.spread(of: mapped) == spread else { return .other }
                if isWitnessed { return .same }
                guard let full else { return .none }
                return try ContentDigest.full(of: mapped) == full ? .same : .other
            } catch {
                // A file that cannot be read proves nothing.
                return .none
            }
        }
        let version = mapped.version
        let latest = FileProof.Times(modified: version.modified, changed: version.changed)
        known.withLock { known in
            guard known.times.first != latest else { return }
            known.times = Array(([latest] + known.times).prefix(FileProof.maxTimes))
        }
    }
}
