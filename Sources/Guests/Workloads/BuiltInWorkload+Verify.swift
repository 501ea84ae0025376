package import Guest
import LinuxSystem

extension BuiltInWorkload {
    /// Checks every page of the stopped workload against the ledger, and every line of a loaded file.
    ///
    /// Pages that were wrong when an operation used them count too, each page once. The check's own waits for absent
    /// pages do not count as stalls.
    package func verify() -> Verification? {
        precondition(!activity.isRunning, "a running workload cannot be verified")
        let access = memory.access(recordingIn: nil)
        return withExtendedLifetime(memory) {
            var corrupt = 0
            for page in 0..<memory.pageCount {
                let holds = access.holds(page, access.arrive(at: page))
                if !holds || memory.wrong.contains(page) { corrupt += 1 }
            }
            guard let load = configuration.load else {
                return Verification(pagesChecked: memory.pageCount, corrupt: corrupt)
            }
            let (lines, digest) = findLines(load, access)
            // A lost line counts as one wrong page, even if every page matches the ledger.
            if lines.found != lines.total || digest != load.digest { corrupt = max(corrupt, 1) }
            return Verification(pagesChecked: memory.pageCount, corrupt: corrupt, lines: lines)
        }
    }

    private func findLines(_ load: LineFile, _ access: PageAccess) -> (lines: Verification.Lines, digest: UInt64) {
        var found = 0
        var all = LineDigest()
        for line in 0..<load.lineCount where findLine(line, access, &all) { found += 1 }
        return (Verification.Lines(found: found, total: load.lineCount), all.value)
    }

    /// Whether every piece of a line is found and whole, in pages that may be wrong.
    private func findLine(_ line: Int, _ access: PageAccess, _ all: inout LineDigest) -> Bool {
        let shard = threads[line % threads.count].shard(access)
        // The bound ends a line that never ends, in a damaged table.
        for piece in 0..<memory.pageCount * 4 {
            let key = KeyValueEntry.key(line: line, piece: piece)
            guard case .found(let entry, _) = shard.search(key, trusting: true) else { return false }
            let pieceDigest = digest(of: entry.value, seed: key)
            guard pieceDigest == entry.digest else { return false }
            all.add(pieceDigest: pieceDigest)
            guard entry.continues else { return true }
        }
        return false
    }
}
