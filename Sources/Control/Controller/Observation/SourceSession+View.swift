import Identity
import PageServer
import Switchover
import Telemetry

extension SourceSession {
    /// What the live page and the metrics show of a source.
    struct View: Sendable {
        let status: Status
        let migration: String
        let sides: [LiveState.Migration.Side]
        let error: String?
        let switchover: [String: Double]?
    }

    /// The present state for the live page and for metrics.
    func view() -> View {
        let begin = timeline[.begin]
        let status = snapshot()
        return View(
            status: status,
            migration: migration.description,
            sides: [
                states.path.side(.source, own: true, since: begin),
                destinationPath.side(.destination, own: false, since: begin),
            ],
            error: status.failureReason ?? (machine.state == .postcopyPaused ? redialing.silence : nil),
            switchover: timeline[.stopped] == nil
                ? nil
                : [
                    "stop_us": timeline.microseconds(from: .stopAsked, to: .stopped),
                    "save_us": timeline.microseconds(from: .stopped, to: .saved),
                    "load_us": timeline.microseconds(from: .saved, to: .loaded),
                    "start_us": timeline.microseconds(from: .loaded, to: .running),
                ]
        )
    }
}
