import Compression
import LinuxSystem
import PageFetcher
import PageProtocol

/// Memory that the destination agent of a migration fills.
final class AgentRig: Rig {
    let memory: RigMemory
    var pageCount: Int { memory.region.pageCount }
    private let fetcher: PageFetcher

    init(pageCount: Int, prefetch: Prefetch, inThread: Bool, polling: Duration, lanes: BenchLanes) throws {
        let region = try MemoryRegion(name: "bench", pageCount: pageCount)
        let userfaultfd =
            try inThread ? Userfaultfd(features: .sigbus) : Userfaultfd(wished: .threadID)
        try userfaultfd.register(region.range)
        let memory = RigMemory(region, try userfaultfd.duplicate())
        let shape = RegionShape(name: "bench", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
        fetcher = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: [region.range],
            resident: [PageBitmap(pageCount: pageCount)],
            table: RegionTable([shape]),
            prefetch: prefetch,
            resolvesInThread: inThread,
            polling: polling
        ) { event in
            switch event {
            case .everyPageResident: memory.complete()
            // The thread faults again if its fault cannot be answered.
            case .faultUnanswered, .forked: break
            case .failed(let reason), .memoryLost(let reason): memory.fail(reason, region.range)
            }
        }
        self.memory = memory
        try fetcher.start()
        try fetcher.attach(
            urgent: [lanes.urgent],
            bulk: lanes.bulk,
            answersAhead: true,
            inflating: Set(Codec.allCases)
        ) { event in
            switch event {
            case .everyRunFetched: break
            case .lost(let lane, let reason): memory.fail("the \(lane) lane broke: \(reason)", region.range)
            case .placementFailed(let reason): memory.fail(reason, region.range)
            }
        }
    }

    func end() {
        fetcher.stop()
    }
}
