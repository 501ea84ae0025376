import LinuxSystem

extension BuiltInWorkload {
    /// Writes the initial content of all pages, each thread's pages in a thread of their own.
    func fill() throws {
        let lines = try loadLines()
        let fillers = ThreadGroup()
        defer { fillers.join() }
        for thread in threads {
            try fillers.run("fill-\(thread.index)") { thread.fill(lines) }
        }
    }

    private func loadLines() throws(WorkloadError) -> FileLines? {
        guard let load = configuration.load else { return nil }
        let lines = try FileLines(reading: load.path)
        guard lines.summary == load else {
            throw WorkloadError("\(load.path) changed while it was being read; load it again")
        }
        try KeyValuePlan.check(lines, fit: memory)
        return lines
    }
}

extension WorkloadThread {
    fileprivate func fill(_ lines: FileLines?) {
        let access = memory.access(recordingIn: nil)
        withExtendedLifetime(memory) {
            switch configuration.pattern {
            case .sequential, .random, .zipf: fillPages(access)
            case .chase: fillCycle(access)
            case .kv: fillTable(access, lines)
            }
        }
    }

    private func fillPages(_ access: PageAccess) {
        let untouched = UntouchedRuns(seed: configuration.seed)
        for page in stride(from: index, to: memory.pageCount, by: memory.threadCount) where !untouched.contains(page) {
            write(page, next: 0, access)
        }
    }

    /// Links all pages of the thread into one cycle (Sattolo's shuffle).
    private func fillCycle(_ access: PageAccess) {
        var random = RandomStream(seed: configuration.seed, stream: UInt64(index) | 1 << 32)
        var next = (0..<UInt32(pageCount)).map { $0 }
        for last in stride(from: next.count - 1, to: 0, by: -1) {
            next.swapAt(last, random.next(below: last))
        }
        for (local, following) in next.enumerated() {
            let target = Int(following) * memory.threadCount + index
            write(local * memory.threadCount + index, next: UInt64(target), access)
        }
    }

    private func write(_ page: Int, next: UInt64, _ access: PageAccess) {
        access.ledger[page] = 1
        access.format.fill(access.arrive(at: page), index: page, version: 1, next: next)
    }

    private func fillTable(_ access: PageAccess, _ lines: FileLines?) {
        let shard = shard(access)
        let plan = KeyValuePlan(configuration)
        let zeros = [UInt8](repeating: 0, count: KeyValueEntry.syntheticLength)
        for number in stride(from: index, to: plan.keyCount, by: memory.threadCount) {
            if let lines {
                lines.forEachPiece(ofLine: number) { key, piece, continues in
                    reserve(key, piece.count, shard).write(key: key, value: piece, continues: continues)
                }
            } else {
                let key = UInt64(number)
                let entry = reserve(key, KeyValueEntry.syntheticLength, shard)
                zeros.withUnsafeBytes { entry.write(key: key, value: $0, continues: false) }
                entry.makeUp(seed: configuration.seed, key: key, count: 0)
            }
        }
        shard.seal()
    }

    private func reserve(_ key: UInt64, _ length: Int, _ shard: KeyValueShard) -> KeyValueEntry {
        // `KeyValuePlan` has checked that the table has room for every entry.
        guard let entry = shard.reserve(key, valueLength: length) else {
            preconditionFailure("a table that fits has no room")
        }
        return entry
    }
}
