import Guest
import Identity
import PageFetcher
import Switchover
import Telemetry

extension DestinationSession {
    /// What the live page and the metrics show of a destination.
    struct View: Sendable {
        let status: Status
        let migration: String?
        let sides: [LiveState.Migration.Side]
        let error: String?
        let switchover: [String: Double]?
        let recorders: Recorders
        let floor: Report.Floor
        /// What brings the pages; nil before memory is here, and once it is freed.
        let fetcher: PageFetcher?
        let memoryBytes: UInt64
        let awaitsCont: Bool
    }

    /// The present state for the live page and for metrics.
    func view() -> View {
        // `fill` measures the stalls by the workload's own recorders, or by faults.
        var report = AgentReport(instance: "")
        let recorders = fill(&report)
        let begin = timeline[.begin]
        let regions = arrival?.announcement.description.regions ?? []
        return View(
            status: snapshot(),
            migration: report.migration,
            sides: [
                states.path.side(.destination, own: true, since: begin),
                sourcePath.side(.source, own: false, since: begin),
            ],
            error: report.error,
            switchover: timeline[.loaded] == nil
                ? nil
                : [
                    "load_us": timeline.microseconds(from: .loadBegun, to: .loaded),
                    "start_us": timeline.microseconds(from: .runReceived, to: .started),
                ],
            recorders: recorders,
            floor: arrival?.floor ?? Report.Floor(),
            fetcher: arrival?.fetcher,
            memoryBytes: regions.reduce(0) { $0 + UInt64($1.pageSize) * UInt64($1.pageCount) },
            awaitsCont: machine.awaitsCont
        )
    }
}
