package import LinuxSystem
package import PageProtocol

/// The connections of a migration that carry pages.
package struct Lanes: Sendable {
    /// The urgent lanes, one for each fault-serving thread of the destination.
    package let urgent: [SharedSocket]
    /// The bulk lanes, for pages that no fault waits for.
    package let bulk: [SharedSocket]

    private init(urgent: [SharedSocket], bulk: [SharedSocket]) {
        self.urgent = urgent
        self.bulk = bulk
    }

    /// Connects to a peer and joins the lanes to the migration of `hello`.
    ///
    /// - Parameters:
    ///   - address: the address of the peer.
    ///   - hello: the HELLO whose migration and nonce each JOIN repeats.
    ///   - urgentLanes: the number of urgent lanes.
    ///   - bulkLanes: the number of bulk lanes.
    ///   - peerTimeout: the longest time in which the peer's host may acknowledge nothing.
    package init(
        to address: SocketAddress,
        as hello: Hello,
        urgentLanes: Int,
        bulkLanes: Int,
        peerTimeout: Duration
    ) throws(SystemError) {
        self.init(
            urgent: try Lanes.join(.urgent, count: urgentLanes, to: address, as: hello, peerTimeout: peerTimeout),
            bulk: try Lanes.join(.bulk, count: bulkLanes, to: address, as: hello, peerTimeout: peerTimeout)
        )
    }

    /// Connects the first lanes of a kind; the parameters are those of
    /// ``init(to:as:urgentLanes:bulkLanes:peerTimeout:)``.
    package static func join(
        _ lane: Lane,
        count: Int,
        to address: SocketAddress,
        as hello: Hello,
        peerTimeout: Duration
    ) throws(SystemError) -> [SharedSocket] {
        var lanes: [SharedSocket] = []
        for index in 0..<count {
            lanes.append(try join(lane, index, to: address, as: hello, peerTimeout: peerTimeout))
        }
        return lanes
    }

    /// Connects one lane; the parameters are those of ``init(to:as:urgentLanes:bulkLanes:peerTimeout:)``.
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
        private var lanes: [Lane: [SharedSocket?]]

        /// Makes a set without lanes.
        ///
        /// - Parameters:
        ///   - urgentLanes: the number of urgent lanes to wait for.
        ///   - bulkLanes: the number of bulk lanes to wait for.
        package init(urgentLanes: Int, bulkLanes: Int) {
            lanes = [
                .urgent: Array(repeating: nil, count: urgentLanes), .bulk: Array(repeating: nil, count: bulkLanes),
            ]
        }

        /// Whether the lane that `join` names has not arrived yet.
        package func awaits(_ join: Join) -> Bool {
            guard let awaited = lanes[join.lane], awaited.indices.contains(join.index) else { return false }
            return awaited[join.index] == nil
        }

        /// Adds the lane that `join` names; ``awaits(_:)`` must be true for it.
        package mutating func add(_ socket: SharedSocket, _ join: Join) {
            lanes[join.lane]?[join.index] = socket
        }

        /// All lanes; nil while one is missing.
        package var complete: Lanes? {
            guard let urgent = complete(.urgent), let bulk = complete(.bulk) else { return nil }
            return Lanes(urgent: urgent, bulk: bulk)
        }

        private func complete(_ lane: Lane) -> [SharedSocket]? {
            guard let awaited = lanes[lane], !awaited.contains(where: { $0 == nil }) else { return nil }
            return awaited.compactMap(\.self)
        }
    }
}
