import LinuxSystem

/// The connections on which pages move.
struct BenchLanes {
    let urgent: SharedSocket
    var bulk: [SharedSocket]
}

/// The near end's connection to a far end.
struct FarLink: ~Copyable {
    let address: SocketAddress
    private let control: StreamSocket
    private let client: UInt64

    init(to address: SocketAddress) throws {
        let client = UInt64.random(in: .min ... .max)
        let control = try StreamSocket(connectingTo: address)
        try BenchLine.send(BenchOpening(role: .control, client: client), on: control)
        self.address = address
        self.client = client
        self.control = control
    }

    @discardableResult
    func ask(_ step: BenchRequest.Step, _ setup: BenchSetup? = nil) throws -> BenchAnswer {
        try BenchLine.send(BenchRequest(step: step, setup: setup), on: control)
        return try answer()
    }

    private func answer() throws -> BenchAnswer {
        guard let answer = try BenchLine.receive(BenchAnswer.self, from: control) else {
            throw BenchFailure("the far end at \(address) closed the connection; see what it printed")
        }
        if let error = answer.error { throw BenchFailure("the far end at \(address): \(error)") }
        return answer
    }

    /// Asks the far end to serve memory, and connects the lanes.
    ///
    /// - Parameter relay: the relay through which the lanes are connected; nil connects them directly.
    func lanes(_ setup: BenchSetup, through relay: DelayRelay? = nil) throws -> BenchLanes {
        try ask(.serve, setup)
        func lane(_ role: BenchOpening.Role, _ index: Int = 0) throws -> SharedSocket {
            let socket = try StreamSocket(connectingTo: relay?.address ?? address)
            try BenchLine.send(BenchOpening(role: role, client: client, lane: index), on: socket)
            return SharedSocket(socket)
        }
        let lanes = BenchLanes(urgent: try lane(.urgent), bulk: try (0..<setup.lanes).map { try lane(.bulk, $0) })
        // The second answer says that the far end has all lanes, and serves them.
        _ = try answer()
        return lanes
    }
}
