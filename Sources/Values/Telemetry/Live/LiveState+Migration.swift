package import Identity

extension LiveState {
    /// The migration of an agent.
    package struct Migration: Encodable, Hashable, Sendable {
        /// The part of an agent in its migration.
        package enum Role: String, Encodable, Sendable {
            case source, destination, none
        }

        package var role = Role.none
        /// The id of the migration, 32 hexadecimal digits.
        package var id: String?
        /// The name of the workload.
        package var workload = ""
        package var runsHere = false
        /// Whether everything is ready, and the workload starts at `cont`.
        package var awaitsCont: Bool?
        package var memoryBytes: UInt64 = 0
        package var pageSize = 0
        /// The states that each side has passed, as far as this side knows.
        package var sides: [Side] = []
        /// The states that each side can be in, in their usual order.
        package var possible: [String: [MigrationState]] = [:]
        /// The states that can follow each other, on each side.
        package var edges: [String: [[MigrationState]]] = [:]
        /// Why the migration failed or is paused.
        package var error: String?
        /// From the beginning of the migration to its end, or until now, in microseconds.
        package var total = 0.0
        /// From the last operation at the source to the report of the start, in microseconds; only a source knows.
        package var downtime: Double?
        /// The parts of the downtime that this side has measured, in microseconds.
        package var switchover: [String: Double]?

        package enum CodingKeys: String, CodingKey {
            case role, id, workload, sides, possible, edges, error, switchover
            case runsHere = "runs_here"
            case awaitsCont = "awaits_cont"
            case memoryBytes = "memory_bytes"
            case pageSize = "page_size"
            case total = "total_us"
            case downtime = "downtime_us"
        }

        /// Makes the description of an agent without a migration.
        package init() {}

        /// The states of one side.
        package struct Side: Encodable, Hashable, Sendable {
            package var side: String
            /// Whether this agent is that side.
            package var own: Bool
            /// The states, with times since the migration began here, by the clock of this agent.
            package var states: [Report.Passed]

            package init(side: String, own: Bool, states: [Report.Passed]) {
                (self.side, self.own, self.states) = (side, own, states)
            }
        }
    }
}
