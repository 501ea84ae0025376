import Foundation
import RunLease

/// The records of a run lease, for people or as JSON.
struct LeaseTable {
    private let printed: Printed

    /// Whether it can be said who may run the workload.
    var isReadable: Bool { printed.records.last?.state != LeaseTable.damaged }

    /// Who may run the workload now, in a sentence.
    var summary: String { printed.summary }

    private static let damaged = "damaged"

    /// - Parameter history: every epoch that has a file, in order, with its record; nil for one that is damaged.
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
        /// holding, given-back, released or damaged.
        let state: String
        let newest: Bool

        enum CodingKeys: CodingKey { case epoch, owner, token, state, newest }

        init(_ epoch: UInt64, _ record: LeaseRecord?, isNewest: Bool) {
            self.epoch = epoch
            owner = record?.owner
            token = record?.token
            newest = isNewest
            state =
                switch record?.standing {
                case .holding: "holding"
                case .givenBack: "given-back"
                case .released: "released"
                case nil: LeaseTable.damaged
                }
        }

        /// Writes what there is not, too: readers find the same keys in each object.
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
        guard let newest = history.last else { return "Nobody has the lease: any agent may start the workload." }
        guard let record = newest.record else {
            return "nobody can tell who may run the workload: the record \(place)/\(newest.epoch) is damaged"
        }
        guard (try? record.release()) != nil else {
            return "Nobody else may start the workload, ever: no epoch follows \(record.epoch). Use another name."
        }
        switch record.standing {
        case .released: return "Nobody runs the workload: any agent may start it."
        case .holding, .givenBack:
            let runners = record.possibleRunners(following: history.last { $0.epoch < record.epoch }?.record)
            let who =
                runners.count == 1
                ? "Only \(record.owner) may run the workload; if that agent is gone for good: "
                : "Only \(record.owner) may run the workload, or \(runners[1]) if that was let have it back; if both are "
                    + "gone for good: "
            return who + takeCommand(place, runners)
        }
    }

    /// The command that takes the lease over from agents that are gone.
    static func takeCommand(_ place: String, _ runners: [String]) -> String {
        "pageferry lease \(place)" + runners.map { " --take \($0)" }.joined()
    }

    /// A line for each epoch, and who may run the workload now.
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
            // A record of the last epoch is the last line.
            expected = record.epoch &+ 1
        }
        return lines + [printed.summary]
    }

    /// One JSON object.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(printed), as: UTF8.self)
    }
}
