public import LinuxSystem
public import PageProtocol

/// The connections that carry pages.
public struct Lanes: Sendable {
    /// One for each thread of the destination that serves faults.
    public let urgent: [SharedSocket]
    /// The one for pages that nobody waits for.
    public let bulk: SharedSocket

    private init(urgent: [SharedSocket], bulk: SharedSocket) {
        self.urgent = urgent
        self.bulk = bulk
    }

    /// Connects to a peer and joins what its HELLO has opened.
    ///
    /// - Parameter urgentLanes: how many lanes for pages that somebody waits for.
    public init(to address: SocketAddress, as hello: Hello, urgentLanes: Int) throws(SystemError) {
        func joined(_ lane: Lane, _ index: Int = 0) throws(SystemError) -> SharedSocket {
            let socket = try StreamSocket(connectingTo: address)
            try socket.send(Join(lane: lane, index: index, migration: hello.migration, nonce: hello.nonce).encode())
            return SharedSocket(socket)
        }
        var urgent: [SharedSocket] = []
        for index in 0..<urgentLanes { urgent.append(try joined(.urgent, index)) }
        self.init(urgent: urgent, bulk: try joined(.bulk))
    }

    /// Those that have come so far.
    public struct Arriving: Sendable {
        private var urgent: [SharedSocket?]
        private var bulk: SharedSocket?

        /// None yet.
        ///
        /// - Parameter urgentLanes: how many are awaited.
        public init(urgentLanes: Int) {
            urgent = Array(repeating: nil, count: urgentLanes)
        }

        /// Whether a lane is awaited.
        public func awaits(_ join: Join) -> Bool {
            switch join.lane {
            case .urgent: urgent.indices.contains(join.index) && urgent[join.index] == nil
            case .bulk: bulk == nil
            }
        }

        /// Takes a lane that is awaited.
        public mutating func add(_ socket: SharedSocket, _ join: Join) {
            switch join.lane {
            case .urgent: urgent[join.index] = socket
            case .bulk: bulk = socket
            }
        }

        /// All lanes, once they are there.
        public var complete: Lanes? {
            let urgent = urgent.compactMap(\.self)
            guard let bulk, urgent.count == self.urgent.count else { return nil }
            return Lanes(urgent: urgent, bulk: bulk)
        }
    }
}
