/// Pages that are never written, so that a workload has zero pages: in every 256, one run of 16.
struct UntouchedRuns: Sendable {
    let seed: UInt64

    func contains(_ page: Int) -> Bool {
        let run = mixed(seed ^ mixed(UInt64(page >> 8))) & 15
        return page >> 4 & 15 == Int(run)
    }
}
