import Foundation
import Identity
import LinuxSystem
import Orchestration
import Telemetry

/// The progress of a migration, shown on one line of a terminal.
struct ProgressLine: Sendable {
    private let isShown: Bool

    init() {
        isShown = isatty(STDERR_FILENO) == 1 && !Terminal.isQuiet
    }

    /// Shows the progress of a migration until `end` returns or throws.
    ///
    /// The line is complete then, so that an error is printed on a line of its own.
    func watch<Sides>(_ migration: Migration, untilEnd end: () async throws -> Sides) async throws -> Sides {
        let watching = Task { await watch(migration) }
        let result: Result<Sides, any Error>
        do {
            result = .success(try await end())
        } catch {
            result = .failure(error)
        }
        watching.cancel()
        await watching.value
        return try result.get()
    }

    /// Shows the progress until the task is cancelled.
    private func watch(_ migration: Migration) async {
        guard isShown else { return await tellStates(migration) }
        var told: String?
        var last = (resident: 0, time: MonotonicClock.now())
        // Cancelling the task makes the sleep throw, which ends the loop.
        while (try? await Task.sleep(for: .milliseconds(200))) != nil {
            // The wait for the migration's end reports an agent that does not answer.
            guard let report = try? await migration.sides().destination, let arrived = report.destination else {
                continue
            }
            if report.states.last == .postcopyDevice, let reason = report.error {
                // The start was refused, and the source waits: the migration continues only on a command.
                if told != reason {
                    show("")
                    Terminal.say(
                        "pageferry: \(reason); run pageferry cont \(migration.destination.address), or pageferry cancel "
                            + "\(migration.source.address)"
                    )
                }
                told = reason
                continue
            }
            let seconds = MonotonicClock.time(since: last.time) / .seconds(1)
            let bytes = (Double(arrived.pages.resident) - Double(last.resident)) * Double(report.pageSize)
            last = (arrived.pages.resident, MonotonicClock.now())
            show(
                String(
                    format: "%@ %d/%d pages %.0f MiB/s p99 %.0f µs",
                    report.states.last?.rawValue ?? "",
                    arrived.pages.resident,
                    arrived.pages.total,
                    bytes / 1_048_576 / seconds,
                    // The faults of a guest whose stalls cannot be measured.
                    (arrived.stall.count > 0 ? arrived.stall : arrived.service).p99
                )
            )
        }
        show("")
    }

    /// Prints a line once the migration takes long, and then whenever a state changes, if there is no terminal.
    private func tellStates(_ migration: Migration) async {
        var told: String?
        let begin = MonotonicClock.now()
        // Cancelling the task makes the sleep throw, which ends the loop.
        while (try? await Task.sleep(for: .milliseconds(200))) != nil {
            guard MonotonicClock.time(since: begin) > LongWait.patience,
                // The wait for the migration's end reports an agent that does not answer.
                let sides = try? await migration.sides(),
                let here = sides.source?.states.last, let there = sides.destination?.states.last,
                // The report follows.
                here != .failed, here != .cancelled
            else { continue }
            let line = "pageferry: the migration is under way: \(here) at the source, \(there) at the destination"
            if line != told { Terminal.tell(line) }
            told = line
        }
    }

    /// The most columns of the line: a line that is wider than the terminal cannot be overwritten.
    private static let width = 60

    private func show(_ line: String) {
        Terminal.sayInPlace(String(line.prefix(ProgressLine.width)))
    }
}
