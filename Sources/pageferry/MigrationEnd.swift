import Identity
import LinuxSystem
import Orchestration
import Telemetry

/// Why a migration has ended or paused without a workload that runs at its destination, and what to do about it.
struct MigrationEnd {
    private let report: Report
    private let sides: Migration.Sides
    private let migration: Migration

    init(_ report: Report, _ sides: Migration.Sides, _ migration: Migration) {
        (self.report, self.sides, self.migration) = (report, sides, migration)
    }

    /// Returns the reason and the remedy in one line; nil if the migration has completed and the workload runs.
    ///
    /// - Parameter uri: the address that the operator has given as `--uri`.
    func line(dialing uri: SocketAddress?) async -> String? {
        let headline = ReportTable(report).headline
        switch report.result {
        case .completed: return report.error.map { "the migration has completed, and \($0)" }
        case .cancelled: return headline
        case .paused:
            let reason = sides.source?.error ?? sides.destination?.error ?? "the link broke"
            return "the migration is paused: \(reason); \(pauseRemedy)"
        case .failed:
            guard isWorkloadIntact else { return "the migration failed: \(headline)" }
            if !sides.gone.contains(.destination), let address = await MigrationEnd.whereToDial(migration, uri) {
                return "the migration failed: \(address.reason(of: report.error ?? "")); \(ReportTable(report).place); "
                    + address.remedy
            }
            return "the migration failed: \(headline); \(remedy)"
        }
    }

    /// What to give as `--uri` after the source has not reached the destination.
    struct Address {
        let remedy: String
        /// Whether no agent has answered where the source dialed, or another one than the destination.
        let isWrong: Bool

        /// Returns an error, without its own remedy if that would be to look at a wrong address.
        func reason(of error: String) -> String { isWrong ? String(error.prefix { $0 != ";" }) : error }
    }

    /// How an operator can end a pause that no agent tries to end any more.
    private var pauseRemedy: String {
        let (source, destination) = (migration.source.address, migration.destination.address)
        if sides.gone.contains(.source) {
            return "the source's agent is gone; if it stays gone: pageferry cancel --workload-is-lost \(destination)"
        }
        if sides.gone.contains(.destination) {
            return "the destination's agent is gone; if it stays gone: "
                + Advice.ifDestinationIsGone(source, sides.source)
        }
        if let end = sides.destination?.ended {
            return "the workload has ended on the destination: \(end); "
                + Advice.ifDestinationIsGone(source, sides.source)
        }
        return "the agents no longer try to reconnect: pageferry recover --source \(source) --uri tcp:HOST:PORT"
    }

    private var isCancelledThere: Bool {
        sides.destination?.states.last == .cancelled && sides.destination?.migration == sides.source?.migration
    }

    private var isWorkloadIntact: Bool { report.verify.corrupt == 0 && report.runsOn == .source }

    /// What to do after a failure that leaves the workload intact on the source.
    private var remedy: String {
        if sides.gone.contains(.destination) {
            return "start the destination \(migration.destination.address) again, then run this migrate again"
        }
        // The operator who has cancelled at the destination knows the cause.
        if isCancelledThere { return "run this migrate again if the workload is to move after all" }
        return "fix the cause, then run this migrate again"
    }

    /// Returns what to give as `--uri` if the source has not reached the destination; nil if it has.
    static func whereToDial(_ migration: Migration, _ uri: SocketAddress?) async -> Address? {
        do {
            let here = try await migration.source.report()
            guard here.states.last == .failed, !here.states.contains(.active), let source = here.source else {
                return nil
            }
            let isWrong = source.hasMet != true || source.hasMetOther == true
            if let uri, let listening = try await migration.listeningElsewhere(than: uri) {
                return Address(
                    remedy: "the destination listens at \(listening): correct --uri",
                    isWrong: isWrong
                )
            }
            guard source.hasMet != true else { return nil }
            return Address(
                remedy: "give --uri the address at which the source reaches the destination",
                isWrong: isWrong
            )
        } catch {
            // An agent that has exited meanwhile leaves no advice.
            return nil
        }
    }
}
