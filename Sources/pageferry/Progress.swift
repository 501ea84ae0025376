import Foundation
import Orchestration
import Telemetry

/// One line on a terminal that says how far a migration is.
struct Progress: Sendable {
    private let isShown: Bool

    init() {
        isShown = isatty(STDERR_FILENO) == 1
    }

    /// Shows the line until the task is cancelled.
    func watch(_ migration: Migration) async {
        guard isShown else { return }
        var last = (resident: 0, time: ContinuousClock.now)
        // Cancelling ends the sleep with an error, which is the way out.
        while (try? await Task.sleep(for: .milliseconds(200))) != nil {
            guard let report = await migration.sides().destination, let arrived = report.destination else { continue }
            if report.states.last == "postcopy-device", let reason = report.error {
                // With a source that waits for another cont, nothing goes on by itself.
                show("\(reason); run `pageferry cont` at the destination, or `pageferry cancel` at the source")
                continue
            }
            let now = ContinuousClock.now
            let seconds = Double((now - last.time) / .milliseconds(1)) / 1000
            let bytes = (Double(arrived.pages.resident) - Double(last.resident)) * Double(report.pageSize)
            last = (arrived.pages.resident, now)
            show(
                String(
                    format: "%@  %d of %d pages  %.0f MiB/s  stall p99 %.0f µs",
                    report.states.last ?? "",
                    arrived.pages.resident,
                    arrived.pages.total,
                    bytes / 1_048_576 / seconds,
                    arrived.stall.p99
                )
            )
        }
        show("")
    }

    private func show(_ line: String) {
        Terminal.sayInPlace(line)
    }
}
