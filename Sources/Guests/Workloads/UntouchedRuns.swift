/// The pages that a workload never writes, so that it has zero pages: one run of 16 in every 256.
struct UntouchedRuns: Sendable {
    let seed: UInt64

    func contains(_ page: Int) -> Bool {
        let run = mixed(seed ^ mixed(UInt64(page >> 8))) & 15
        return page >> 4 & 15 == Int(run)
    }
}
