import Foundation
import LinuxSystem
import PageFetcher
package import Telemetry

/// A guest as its operator sees it, and what the operator can order.
struct GuestView: Sendable {
    /// The time of day at which `MonotonicClock` was 0, in milliseconds since 1970.
    ///
    /// Read once, so that a guest has attached at the same time at every look: the live page is sent what differs.
    private static let clockBegin = Date().timeIntervalSince1970 * 1e3 - Double(MonotonicClock.now()) / 1e6

    let task: GuestTask
    let memory: SessionMemory

    /// The guest's figures, at most about a second old.
    ///
    /// - Parameter id: what tells the guest from the others of its handler.
    func live(as id: LiveGuest.ID) -> LiveGuest {
        // Read before the time, so that neither lies in the future.
        let (figures, attached) = (memory.figures, self.attached)
        let now = MonotonicClock.now()
        let names = GuestFate.State.names
        var live = LiveGuest(
            id: id,
            name: task.label ?? (task.process > 0 ? "process \(task.process)" : "\(id)"),
            socket: task.socket,
            state: names.indices.contains(figures.state) ? names[figures.state] : names[0],
            server: task.settings.source,
            policy: task.settings.onLost.rawValue
        )
        live.total = task.regions.reduce(0) { $0 + $1.pageCount }
        live.resident = figures.resident
        live.demand = figures.demand
        live.ahead = figures.ahead
        live.waiting = figures.waiting
        live.oldest = figures.waitingSince == 0 ? 0 : Double(now - min(now, figures.waitingSince)) / 1e3
        live.p50 = figures.percentile(0.5)
        live.p99 = figures.percentile(0.99)
        live.served = figures.served.reduce(0, +)
        live.serviceTotal = Double(figures.nanoseconds) / 1e3
        live.fill = fill.map { $0 == .unlimited ? 0 : $0.bytesPerSecond }
        live.restarts = max(0, memory.workers - 1)
        live.attached = attached
        live.policyCountdown = countdown(figures, now)
        return live
    }

    /// When the guest attached, in milliseconds since 1970.
    private var attached: UInt64 { UInt64(max(0, GuestView.clockBegin + Double(memory.attached) / 1e6)) }

    /// The report of a guest that is served no longer.
    ///
    /// - Parameter end: how its service ended.
    func ended(_ end: GuestService.End) -> EndedGuest {
        // Read before the time, so that the attachment does not lie in the future.
        let (figures, began) = (memory.figures, memory.attached)
        var report = Report()
        report.kind = .restore
        report.workload.name = task.name
        report.pageSize = task.regions.map(\.pageSize).max() ?? 0
        report.memoryBytes = task.regions.reduce(0) { $0 + $1.range.byteCount }
        report.total = Double(MonotonicClock.now() - began) / 1e3
        report.pages.total = task.regions.reduce(0) { $0 + $1.pageCount }
        (report.pages.demand, report.pages.prefetched) = (figures.demand, figures.ahead)
        report.service = figures.service
        report.distribution = Report.Distribution(stall: [], service: figures.octaves)
        report.distribution?.perOctave = 1
        report.waiting.faults = figures.waiting
        switch end {
        case .complete: (report.result, report.runsOn) = (.completed, .destination)
        case .done: (report.result, report.runsOn) = (.completed, .nobody)
        case .lost:
            report.error = "the guest could be served no longer and was killed; the log says why"
        }
        return EndedGuest(process: task.process, attached: attached, report: report)
    }

    private var fill: FillRate? { memory.fill ?? task.settings.fill }

    /// Seconds until the policy is applied to a guest that has waited for its page for a second; nil if it does not.
    private func countdown(_ figures: WorkerFigures, _ now: UInt64) -> Double? {
        guard figures.waitingSince > 0, [0, 1, 2].contains(figures.state) else { return nil }
        let since = min(figures.waitingSince, memory.lostSince ?? .max)
        let waited = Double(now - min(now, since)) / 1e9
        return waited >= 1 ? max(0, task.settings.giveUpSeconds - waited) : nil
    }

    /// Orders to fetch the pages that the guest does not touch, at most this fast.
    ///
    /// The guest's worker follows within a second, and so do later workers and handlers.
    ///
    /// - Throws: ``FillRefused`` if the guest's touches are being recorded.
    func order(_ rate: FillRate) throws(FillRefused) {
        guard task.settings.record == nil || memory.isRecorded else {
            throw FillRefused(
                description: "the touches of process \(task.process) are being recorded, and pages that are fetched "
                    + "ahead raise no fault; wait until the record is written"
            )
        }
        memory.fill = rate
    }
}

/// A guest that is served no longer: it has ended, was lost, or has all of its pages.
package struct EndedGuest: Sendable {
    /// The guest's process id; 0 for a process of another PID namespace.
    package let process: Int32
    /// When the guest attached, in milliseconds since 1970.
    package let attached: UInt64
    /// What was measured.
    package let report: Report
}

/// Why a guest is not filled.
package struct FillRefused: Error, CustomStringConvertible {
    /// The reason and what to do, in one line.
    package let description: String
    /// Whether no such guest is served.
    package var isUnknown = false
}
