/// The state of a running process, as the live page shows it.
///
/// Members that do not apply are nil, and absent from the JSON text.
package struct LiveState: Encodable, Hashable, Sendable {
    /// What a process does.
    package enum Kind: String, Encodable, Sendable {
        /// Moves a workload: `source` or `destination`.
        case agent
        /// Serves restored guests: `attach`.
        case handler
        /// Serves a snapshot: `serve`.
        case server
    }

    /// What the process does.
    package var kind: Kind
    /// The release that runs.
    package var release = ""
    /// The name of the host.
    package var name = ""
    /// The time, in milliseconds since 1970.
    package var unixMilliseconds: UInt64 = 0
    /// Whether the page may act, with a token.
    package var control = false
    /// The migration of an agent.
    package var migration: Migration?
    /// The pages of a migration, by how they came.
    package var pages: Pages?
    /// The waits of the workload's threads.
    package var stall: Stall?
    /// The connections for pages.
    package var lanes: [Lane]?
    /// Where in the memory the pages of each kind lie.
    package var map: LiveMap?
    /// The latest lines of the log, the oldest first.
    package var events: [Event]?
    /// The number of lines that were logged so far; not part of the JSON text.
    package var eventCount = 0
    /// The guests of a handler.
    package var guests: [LiveGuest]?
    /// The figures of a snapshot server.
    package var server: Server?

    package enum CodingKeys: String, CodingKey, CaseIterable {
        case kind, release, name, control, migration, pages, stall, lanes, map, events, guests, server
        case unixMilliseconds = "unix_ms"
    }

    /// Makes the state of a process of which nothing is known yet.
    package init(_ kind: Kind) { self.kind = kind }
}

extension LiveState {
    /// The pages of a migration, by how they came; at a source, by how they were sent.
    package struct Pages: Encodable, Hashable, Sendable {
        package var total = 0
        /// Pages that are here, also those that needed no transfer; at a source, pages that were sent.
        package var resident = 0
        package var demand = 0
        package var prefetched = 0
        package var pushed = 0
        package var zero = 0
        package var duplicate = 0
        /// Pages that were requested and have not arrived; nil at a source.
        package var asked: Int?
        /// Faults whose page has not arrived.
        package var waiting = 0
        /// How long the oldest of these faults has waited, in microseconds.
        package var oldest = 0.0

        enum CodingKeys: String, CodingKey {
            case total, resident, demand, prefetched, pushed, zero, duplicate, asked, waiting
            case oldest = "oldest_us"
        }

        /// Makes numbers that are all zero.
        package init() {}
    }

    /// The distribution of the waits of the workload's threads, in microseconds.
    package struct Stall: Encodable, Hashable, Sendable {
        package var count: UInt64
        package var p50: Double
        package var p90: Double
        package var p99: Double
        package var p999: Double
        package var max: Double
        /// The median of what the network and a local fault cost without Pageferry.
        package var floor: Double
        /// The bounds of the buckets that count something, each with its count.
        package var histogram: [[UInt64]]

        enum CodingKeys: String, CodingKey {
            case count, histogram
            case p50 = "p50_us"
            case p90 = "p90_us"
            case p99 = "p99_us"
            case p999 = "p999_us"
            case max = "max_us"
            case floor = "floor_us"
        }

        /// Makes the distribution of recorded durations.
        ///
        /// - Parameters:
        ///   - recorders: the recorders.
        ///   - more: nanoseconds to add to each duration.
        ///   - floor: the costs of this machine and network alone.
        package init(_ recorders: [LatencyRecorder], adding more: UInt64, floor: Report.Floor) {
            let summary = LatencySummary(recorders, adding: more)
            (count, p50, p90, p99) = (summary.count, summary.p50, summary.p90, summary.p99)
            (p999, max) = (summary.p999, summary.max)
            self.floor = floor.roundTripP50 + floor.localFaultP50
            histogram = LatencyRecorder.powersOfTwo(of: recorders, adding: more).enumerated().compactMap {
                $1 == 0 ? nil : [UInt64(2) << UInt64($0), $1]
            }
        }
    }

    /// A connection for pages.
    package struct Lane: Encodable, Hashable, Sendable {
        /// The kind of lane and its index, such as `urgent 0`.
        package var name: String
        package var bytes: UInt64
        package var rate: UInt64

        enum CodingKeys: String, CodingKey {
            case name, bytes
            case rate = "rate_bytes_per_s"
        }

        package init(name: String, bytes: UInt64, rate: UInt64) {
            (self.name, self.bytes, self.rate) = (name, bytes, rate)
        }
    }

    /// A line of the log.
    package struct Event: Encodable, Hashable, Sendable {
        package var unixMilliseconds: UInt64
        package var level: String
        package var text: String

        enum CodingKeys: String, CodingKey {
            case level, text
            case unixMilliseconds = "unix_ms"
        }

        package init(unixMilliseconds: UInt64, level: String, text: String) {
            (self.unixMilliseconds, self.level, self.text) = (unixMilliseconds, level, text)
        }
    }

    /// The figures of a snapshot server.
    package struct Server: Encodable, Hashable, Sendable {
        package var snapshotBytes: UInt64
        package var path: String
        package var connections: Int
        package var connectionLimit: Int
        package var sessions: Int
        package var sentBytes: UInt64
        package var rate: UInt64

        enum CodingKeys: String, CodingKey {
            case path, connections, sessions
            case snapshotBytes = "snapshot_bytes"
            case connectionLimit = "connections_limit"
            case sentBytes = "sent_bytes"
            case rate = "rate_bytes_per_s"
        }

        package init(
            snapshotBytes: UInt64,
            path: String,
            connections: Int,
            connectionLimit: Int,
            sessions: Int,
            sentBytes: UInt64,
            rate: UInt64
        ) {
            self.snapshotBytes = snapshotBytes
            self.path = path
            self.connections = connections
            self.connectionLimit = connectionLimit
            self.sessions = sessions
            self.sentBytes = sentBytes
            self.rate = rate
        }
    }
}
