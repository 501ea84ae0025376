import Glibc
import Synchronization
import SystemPackage

/// What happens when the times of a mapped file have changed.
extension MappedFile {
    /// The most times that ``renew(_:)`` begins anew because the file has changed meanwhile.
    private static let mostRenewals = 8

    /// Finds out whether only the times of the file have changed, and accepts them if so.
    ///
    /// After this, ``version`` has the new times, and everything read of the file so far is valid.
    ///
    /// - Parameter hasSameContent: reads the file, and compares it with what was opened. Its argument is whether the
    ///   kernel proves that nobody has written to the file; if not, only a comparison of every page proves anything.
    /// - Throws: the change of the file, or that nothing proves its content.
    package func renew(_ hasSameContent: (_ isWitnessed: Bool) -> Proof) throws(FileChanged) {
        try renewing.withLock { _ throws(FileChanged) in
            for _ in 0..<MappedFile.mostRenewals {
                // A failed call is repeated by `change`, which reports the error.
                guard let now = try? Version(of: descriptor) else { throw change() }
                if isKnown(now) { return }
                guard now.byteCount == byteCount, !tear.isTorn.load(ordering: .sequentiallyConsistent) else {
                    throw change()
                }
                // A later write changes the version again.
                MappedFile.waitForNextTick()
                let proof = hasSameContent(witness?.sawNoWriter(to: descriptor) ?? false)
                // A page that the file no longer has reads as zeros.
                guard let later = try? Version(of: descriptor), later.byteCount == byteCount,
                    !tear.isTorn.load(ordering: .sequentiallyConsistent)
                else { throw change() }
                switch proof {
                case .other: throw change()
                case .none: throw change(isTold: witness != nil)
                case .same where later == now:
                    modified.store(now.modified, ordering: .relaxed)
                    changed.store(now.changed, ordering: .relaxed)
                    return
                case .same: continue
                }
            }
            throw change()
        }
    }

    /// The outcome of a comparison of a file's content with what was opened.
    package enum Proof: Sendable {
        /// The content is the same.
        case same
        /// The content is another one.
        case other
        /// The content may be the same, which nothing proves.
        case none
    }

    /// Waits until the next change of a file gets another time than the changes before.
    ///
    /// Before Linux 6.13, two changes in the same tick of the clock, at most 10 ms long, get the same time.
    static func waitForNextTick() { MonotonicClock.sleep(nanoseconds: 20_000_000) }

    /// Describes how a file that failed the check has changed; kept out of the fast path.
    ///
    /// - Parameter isTold: whether the kernel tells who writes to the file, so that a change of times has a cause.
    @inline(never)
    func change(isTold: Bool = true) -> FileChanged {
        let told: String
        do throws(Errno) {
            let now = try Version(of: descriptor)
            if now.byteCount != byteCount {
                told = "has changed its size from \(byteCount) to \(now.byteCount) bytes"
            } else if !isTold {
                told = "may have been modified: its times have changed, and its file system does not say who writes"
            } else if !isKnown(now), !tear.isTorn.load(ordering: .sequentiallyConsistent) {
                told = "was modified"
            } else {
                told = "can no longer be read; see the kernel's log"
            }
        } catch {
            told = "can no longer be inspected: \(error)"
        }
        return FileChanged(description: "\(path) \(told); serve a file that nobody changes")
    }
}

/// A file that is no longer the one that was opened.
package struct FileChanged: Error, Sendable, CustomStringConvertible {
    /// What has happened to the file, in one line.
    package let description: String
}
