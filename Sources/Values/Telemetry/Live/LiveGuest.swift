/// The figures of one restored guest.
package struct LiveGuest: Encodable, Hashable, Sendable {
    /// What tells a guest from the other guests of its handler.
    package enum ID: Encodable, Hashable, Sendable, CustomStringConvertible {
        /// The guest of a process, by the process id.
        case process(Int32)
        /// The guest of a process in a PID namespace that the handler does not see, by a number of the handler.
        case outside(Int)

        private static let prefix = "outside-"

        /// Reads an id such as `4711` or `outside-3`; nil if the text is none.
        package init?(_ text: some StringProtocol) {
            if text.hasPrefix(ID.prefix), let number = Int(text.dropFirst(ID.prefix.count)), number > 0 {
                self = .outside(number)
            } else if let process = Int32(text), process > 0 {
                self = .process(process)
            } else {
                return nil
            }
        }

        package var description: String {
            switch self {
            case .process(let process): "\(process)"
            case .outside(let number): "\(ID.prefix)\(number)"
            }
        }

        /// Writes the id as a string.
        package func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            try container.encode(description)
        }
    }

    /// What tells the guest from the others.
    package var id: ID
    /// The process id; 0 for a process of another PID namespace.
    package var pid: Int32 {
        switch id {
        case .process(let process): process
        case .outside: 0
        }
    }

    /// The name that the platform gives; otherwise the name of the process.
    package var name: String
    /// The socket at which the guest has attached.
    package var socket: String
    /// What becomes of the guest, such as `linked` or `held`.
    package var state: String
    /// The address of its snapshot server.
    package var server: String
    /// Pages in all of its memory.
    package var total = 0
    /// Pages that have arrived.
    package var resident = 0
    /// Pages that a thread waited for.
    package var demand = 0
    /// Pages that came before they were touched.
    package var ahead = 0
    /// Faults whose page has not arrived.
    package var waiting = 0
    /// How long the oldest of these faults has waited, in microseconds.
    package var oldest = 0.0
    /// The median time from reading a fault to placing its page, in microseconds.
    package var p50 = 0.0
    /// The 99th percentile of these times, in microseconds.
    package var p99 = 0.0
    /// What happens if its pages cannot be fetched: `hold` or `kill`.
    package var policy: String
    /// The rate at which the rest of its memory is fetched, in bytes per second: nil for not at all, 0 for no limit.
    package var fill: UInt64?
    /// Workers that were started again for this guest.
    package var restarts = 0
    /// When the guest attached, in milliseconds since 1970.
    package var attached: UInt64 = 0

    /// The number of faults that were served; shown by metrics only.
    package var served: UInt64 = 0
    /// The sum of the times from reading a fault to placing its page, in microseconds; shown by metrics only.
    package var serviceTotal = 0.0
    /// Seconds until the policy acts, for metrics only; nil if nothing counts down.
    package var policyCountdown: Double?

    enum CodingKeys: String, CodingKey {
        case id, pid, name, socket, state, server, total, resident, demand, ahead, waiting, policy, fill, restarts
        case oldest = "oldest_us"
        case p50 = "p50_us"
        case p99 = "p99_us"
        case attached = "attached_unix_ms"
    }

    /// Describes a guest of which nothing has arrived.
    ///
    /// - Parameters:
    ///   - id: what tells the guest from the others.
    ///   - name: the name that the platform gives.
    ///   - socket: the socket at which the guest has attached.
    ///   - state: what becomes of the guest.
    ///   - server: the address of its snapshot server.
    ///   - policy: what happens if its pages cannot be fetched.
    package init(id: ID, name: String, socket: String, state: String, server: String, policy: String) {
        self.id = id
        self.name = name
        self.socket = socket
        self.state = state
        self.server = server
        self.policy = policy
    }

    /// Writes `fill` as null if the guest is not filled.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(pid, forKey: .pid)
        try container.encode(name, forKey: .name)
        try container.encode(socket, forKey: .socket)
        try container.encode(state, forKey: .state)
        try container.encode(server, forKey: .server)
        try container.encode(total, forKey: .total)
        try container.encode(resident, forKey: .resident)
        try container.encode(demand, forKey: .demand)
        try container.encode(ahead, forKey: .ahead)
        try container.encode(waiting, forKey: .waiting)
        try container.encode(oldest, forKey: .oldest)
        try container.encode(p50, forKey: .p50)
        try container.encode(p99, forKey: .p99)
        try container.encode(policy, forKey: .policy)
        try container.encode(fill, forKey: .fill)
        try container.encode(restarts, forKey: .restarts)
        try container.encode(attached, forKey: .attached)
    }
}
