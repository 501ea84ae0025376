import LinuxSystem
import PageProtocol

/// The connections of a migration that carry pages.
struct Lanes: Sendable {
    /// One for each thread of the destination that serves faults.
    let urgent: [SharedSocket]
    let bulk: SharedSocket

    private init(urgent: [SharedSocket], bulk: SharedSocket) {
        self.urgent = urgent
        self.bulk = bulk
    }

    /// Connects to a destination and joins its migration, with as many lanes as its HELLO says.
    init(to address: SocketAddress, as hello: Hello) throws(SystemError) {
        func joined(_ lane: Lane, _ index: Int = 0) throws(SystemError) -> SharedSocket {
            let socket = try StreamSocket(connectingTo: address)
            try socket.send(Join(lane: lane, index: index, migration: hello.migration, nonce: hello.nonce).encode())
            return SharedSocket(socket)
        }
        var urgent: [SharedSocket] = []
        for index in 0..<hello.urgentLanes { urgent.append(try joined(.urgent, index)) }
        self.init(urgent: urgent, bulk: try joined(.bulk))
    }

    /// Those that have come so far.
    struct Arriving: Sendable {
        private var urgent: [SharedSocket?]
        private var bulk: SharedSocket?

        init(urgentLanes: Int) {
            urgent = Array(repeating: nil, count: urgentLanes)
        }

        /// Whether a lane is awaited.
        func awaits(_ join: Join) -> Bool {
            switch join.lane {
            case .urgent: urgent.indices.contains(join.index) && urgent[join.index] == nil
            case .bulk: bulk == nil
            }
        }

        /// Takes a lane that is awaited.
        mutating func add(_ socket: SharedSocket, _ join: Join) {
            switch join.lane {
            case .urgent: urgent[join.index] = socket
            case .bulk: bulk = socket
            }
        }

        /// All lanes, once they are there.
        var complete: Lanes? {
            let urgent = urgent.compactMap(\.self)
            guard let bulk, urgent.count == self.urgent.count else { return nil }
            return Lanes(urgent: urgent, bulk: bulk)
        }
    }
}
