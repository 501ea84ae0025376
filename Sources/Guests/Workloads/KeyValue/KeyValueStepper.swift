/// Gets and puts Zipf-distributed keys, with one operation in 16 for a scan that reaches every bucket.
struct KeyValueStepper: AccessStepper {
    let shard: KeyValueShard
    let isSynthetic: Bool
    let writes: WriteChoice
    /// The number of the thread's keys; a thread without keys only scans.
    let keyCount: Int
    let sampler: ZipfSampler
    let scramble: Scramble
    var scan: SequentialOrder
    var state: ThreadState

    init(shard: KeyValueShard, plan: KeyValuePlan, writes: WriteChoice, seed: UInt64, state: ThreadState) {
        self.shard = shard
        self.writes = writes
        self.state = state
        isSynthetic = plan.isSynthetic
        keyCount = plan.keyCount(ofThread: shard.thread)
        sampler = ZipfSampler(count: max(1, keyCount))
        scramble = Scramble(count: max(1, keyCount), seed: seed)
        scan = SequentialOrder(count: shard.pageCount)
    }

    @inline(__always)
    mutating func step() {
        if keyCount == 0 || state.operations % ZipfOrder.sweepInterval == 0 {
            _ = shard.access.checked(shard.global(scan.next(&state)))
            return
        }
        let key = UInt64(scramble(sampler.next(&state.random)) &* shard.threadCount &+ shard.thread)
        if writes.next(&state.random) {
            put(key)
        } else {
            get(key)
        }
    }

    @inline(__always)
    private func get(_ key: UInt64) {
        var key = key
        while true {
            switch shard.search(key) {
            case .found(let entry, let page):
                if !entry.isWhole { shard.access.note(page) }
                guard entry.continues else { return }
                key &+= 1 << 40
            case .missing(let page):
                return shard.access.note(page)
            case .wrong:
                return
            }
        }
    }

    @inline(__always)
    private func put(_ key: UInt64) {
        switch shard.search(key) {
        case .found(let entry, let page):
            guard entry.isWhole else { return shard.access.note(page) }
            entry.put(synthetic: isSynthetic, seed: shard.access.format.seed)
            let version = shard.access.nextVersion(of: page)
            shard.access.format.seal(shard.access.arrive(at: page), index: page, version: version)
        case .missing(let page):
            shard.access.note(page)
        case .wrong:
            return
        }
    }
}
