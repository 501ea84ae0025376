package import LinuxSystem
package import PageProtocol

/// The connections of a migration that carry pages.
package struct Lanes: Sendable {
    /// The urgent lanes, one for each fault-serving thread of the destination.
    package let urgent: [SharedSocket]
    /// The bulk lane, for pages that no fault waits for.
    package let bulk: SharedSocket

    private init(urgent: [SharedSocket], bulk: SharedSocket) {
        self.urgent = urgent
        self.bulk = bulk
    }

    /// Connects to a peer and joins the lanes to the migration of `hello`.
    ///
    /// - Parameters:
    ///   - address: the address of the peer.
    ///   - hello: the HELLO whose migration and nonce each JOIN repeats.
    ///   - urgentLanes: the number of urgent lanes.
    ///   - peerTimeout: the longest time in which the peer's host may acknowledge nothing.
    package init(
        to address: SocketAddress,
        as hello: Hello,
        urgentLanes: Int,
        peerTimeout: Duration
    ) throws(SystemError) {
        self.init(
            urgent: try Lanes.join(urgent: urgentLanes, to: address, as: hello, peerTimeout: peerTimeout),
            bulk: try Lanes.join(.bulk, to: address, as: hello, peerTimeout: peerTimeout)
        )
    }

    /// Connects urgent lanes; the parameters are those of ``init(to:as:urgentLanes:peerTimeout:)``.
    package static func join(
        urgent count: Int,
        to address: SocketAddress,
        as hello: Hello,
        peerTimeout: Duration
    ) throws(SystemError) -> [SharedSocket] {
        var lanes: [SharedSocket] = []
        for index in 0..<count {
            lanes.append(try join(.urgent, index, to: address, as: hello, peerTimeout: peerTimeout))
        }
        return lanes
    }

    /// Connects one lane; the parameters are those of ``init(to:as:urgentLanes:peerTimeout:)``.
    package static func join(
        _ lane: Lane,
        _ index: Int = 0,
        to address: SocketAddress,
        as hello: Hello,
        peerTimeout: Duration
    ) throws(SystemError) -> SharedSocket {
        let socket = try StreamSocket(connectingTo: address)
        try socket.tolerateSilence(of: peerTimeout)
        try socket.send(Join(lane: lane, index: index, migration: hello.migration, nonce: hello.nonce).encode())
        return SharedSocket(socket)
    }

    /// The lanes that have arrived so far.
    package struct Arriving: Sendable {
        private var urgent: [SharedSocket?]
        private var bulk: SharedSocket?

        /// Makes a set without lanes.
        ///
        /// - Parameter urgentLanes: the number of urgent lanes to wait for.
        package init(urgentLanes: Int) {
            urgent = Array(repeating: nil, count: urgentLanes)
        }

        /// Whether the lane that `join` names has not arrived yet.
        package func awaits(_ join: Join) -> Bool {
            switch join.lane {
            case .urgent: urgent.indices.contains(join.index) && urgent[join.index] == nil
            case .bulk: bulk == nil
            }
        }

        /// Adds the lane that `join` names; ``awaits(_:)`` must be true for it.
        package mutating func add(_ socket: SharedSocket, _ join: Join) {
            switch join.lane {
            case .urgent: urgent[join.index] = socket
            case .bulk: bulk = socket
            }
        }

        /// All lanes; nil while one is missing.
        package var complete: Lanes? {
            let urgent = urgent.compactMap(\.self)
            guard let bulk, urgent.count == self.urgent.count else { return nil }
            return Lanes(urgent: urgent, bulk: bulk)
        }
    }
}
