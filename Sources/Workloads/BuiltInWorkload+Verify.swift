public import Guest
import LinuxSystem

extension BuiltInWorkload {
    /// Checks every page of every region against the ledger, and every line of a loaded file; it is stopped.
    ///
    /// Pages that were wrong when an operation used them count too, each page once. What it waits for absent pages is
    /// not counted as stalls.
    public func verify() -> Verification? {
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
            // A line that is lost though every page looks right is a wrong page all the same.
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

    /// Whether every piece of a line is there and whole. Pages are read as they are, right or wrong.
    private func findLine(_ line: Int, _ access: PageAccess, _ all: inout LineDigest) -> Bool {
        let shard = threads[line % threads.count].shard(access)
        // In a damaged table a line could go on forever.
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
