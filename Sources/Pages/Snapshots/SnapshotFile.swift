package import LinuxSystem
package import PageProtocol
import Synchronization

/// The memory file of a snapshot, with a proof of what it holds.
package final class SnapshotFile: Sendable {
    /// The mapped file.
    package let mapped: MappedFile
    private let spread: ContentDigest
    private let full: ContentDigest?
    /// The times that ``identity`` has named so far, the newest first.
    private let times = Mutex<[FileProof.Times]>([])

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
        try mapped.requireUnchanged()
    }

    /// The path by which the file was opened.
    package var path: String { mapped.path }
    /// Bytes of the file.
    package var byteCount: Int { mapped.byteCount }

    /// The identity of the snapshot, with the latest times of its file.
    package var identity: SnapshotIdentity {
        let version = mapped.version
        let latest = FileProof.Times(modified: version.modified, changed: version.changed)
        let known = times.withLock { times in
            if times.first != latest { times = Array(([latest] + times).prefix(FileProof.maxTimes)) }
            return times
        }
        let proof = FileProof(device: version.device, inode: version.inode, times: known, spread: spread, full: full)
        return SnapshotIdentity(byteCount: UInt64(byteCount), proof: .file(proof))
    }

    /// Throws unless the content of the file is proved to be the one that was opened.
    package func requireUnchanged() throws(FileChanged) {
        do throws(FileChanged) {
            try mapped.requireUnchanged()
        } catch {
            // The error may be about the times only; `renew` finds it again if it is about more.
            try renew()
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
    }
}
