import Identity
import RunLease
import Telemetry

/// The records of a run lease, as a table or as JSON.
struct LeaseTable {
    private let printed: Printed

    /// Whether the newest record is readable, so that it is known who may run the workload.
    var isReadable: Bool { printed.records.last?.state != LeaseTable.damaged }

    /// Who may run the workload now, in a sentence.
    var summary: String { printed.summary }

    /// The state of a damaged record, and the name that stands for its unknown owner.
    static let damaged = "damaged"

    /// Makes the table of a lease.
    ///
    /// - Parameters:
    ///   - place: the path of the directory that holds the records.
    ///   - history: every epoch that has a file, in order, with its record; nil for a damaged record.
    init(place: String, _ history: [(epoch: UInt64, record: LeaseRecord?)]) {
        printed = Printed(
            lease: place,
            records: history.map { Record($0.epoch, $0.record, isNewest: $0.epoch == history.last?.epoch) },
            summary: LeaseTable.summary(of: place, history)
        )
    }

    private struct Printed: Encodable {
        let schema = "pageferry.lease/1"
        let lease: String
        let records: [Record]
        let summary: String
    }

    private struct Record: Encodable {
        let epoch: UInt64
        let owner: String?
        let token: UInt64?
        /// The state of the record: `holding`, `given-back`, `released` or `damaged`.
        let state: String
        let newest: Bool

        enum CodingKeys: CodingKey { case epoch, owner, token, state, newest }

        init(_ epoch: UInt64, _ record: LeaseRecord?, isNewest: Bool) {
            self.epoch = epoch
            owner = record?.owner
            token = record?.token.value
            newest = isNewest
            state =
                switch record?.standing {
                case .holding: "holding"
                case .givenBack: "given-back"
                case .released: "released"
                case nil: LeaseTable.damaged
                }
        }

        /// Encodes nil as null, so that every object has the same keys.
        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(epoch, forKey: .epoch)
            try container.encode(owner, forKey: .owner)
            try container.encode(token, forKey: .token)
            try container.encode(state, forKey: .state)
            try container.encode(newest, forKey: .newest)
        }

        var line: String {
            let mark = newest ? "  <- newest" : ""
            guard let owner else { return "\(epoch)  the record is damaged\(mark)" }
            let words =
                switch state {
                case "holding": "runs the workload, or has committed to start it"
                case "given-back": "has the lease again, given back by a destination that executed nothing"
                default: "released: nobody runs the workload"
                }
            return "\(epoch)  \(owner)  \(words)\(mark)"
        }
    }

    private static func summary(of place: String, _ history: [(epoch: UInt64, record: LeaseRecord?)]) -> String {
        guard let newest = history.last else { return "No agent owns the lease: any agent may start the workload." }
        guard let record = newest.record else {
            let (file, runners) = ("\(place)/\(newest.epoch)", runners(by: history))
            let others = runners.dropFirst()
            let who = others.isEmpty ? "" : ", including \(others.joined(separator: " and "))"
            return "it is unknown who may run the workload: the record \(file) is damaged; leave it where it is, and "
                + "if every agent that had this lease is gone for good\(who): \(takeCommand(place, runners))"
        }
        // The release fails only if no epoch follows.
        guard (try? record.release()) != nil else {
            return "No other agent can ever start the workload: no epoch follows \(record.epoch). Use another name."
        }
        switch record.standing {
        case .released: return "Nobody runs the workload: any agent may start it."
        case .holding, .givenBack:
            let runners = runners(by: history)
            let who =
                runners.count == 1
                ? "Only \(record.owner) may run the workload; if that agent is gone for good: "
                : "Only \(record.owner) may run the workload, or \(runners[1]), to which it may have given the workload "
                    + "back; if both are gone for good: "
            return who + takeCommand(place, runners)
        }
    }

    /// Returns the agents that may run the workload, beginning with ``damaged`` if the newest record is damaged.
    static func runners(by history: [(epoch: UInt64, record: LeaseRecord?)]) -> [String] {
        let readable = history.compactMap(\.record)
        let known = readable.last?.possibleRunners(following: readable.dropLast().last) ?? []
        return (history.last.map { $0.record == nil } ?? false ? [damaged] : []) + known
    }

    /// Returns the command that releases the lease on behalf of agents that are gone.
    static func takeCommand(_ place: String, _ runners: [String]) -> String {
        "pageferry lease \(place)" + runners.map { " --take \($0)" }.joined()
    }

    /// The table: a line for each epoch, and the summary.
    var lines: [String] {
        var lines: [String] = []
        var expected: UInt64 = 1
        for record in printed.records {
            if record.epoch > expected {
                let last = record.epoch - 1
                lines.append(
                    "\(expected == last ? "" : "\(expected) to ")\(last)  missing: records must not be removed"
                )
            }
            lines.append(record.line)
            // The sum wraps only for the last possible epoch, and that is the last record.
            expected = record.epoch &+ 1
        }
        return lines + [printed.summary]
    }

    /// Returns the records and the summary as one JSON object.
    func json() throws -> String {
        try JSONLine.encode(printed)
    }
}
