import LinuxSystem

/// The two connections on which pages move.
struct LanePair: ~Copyable {
    let urgent: StreamSocket
    var bulk: StreamSocket
}

/// The near end's connection to a far end.
struct FarLink: ~Copyable {
    private let address: SocketAddress
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
    func lanes(_ setup: BenchSetup) throws -> LanePair {
        try ask(.serve, setup)
        let urgent = try lane(.urgent)
        let bulk = try lane(.bulk)
        // The second answer says that the far end has both lanes, and serves them.
        _ = try answer()
        return LanePair(urgent: urgent, bulk: bulk)
    }

    private func lane(_ role: BenchOpening.Role) throws -> StreamSocket {
        let socket = try StreamSocket(connectingTo: address)
        try BenchLine.send(BenchOpening(role: role, client: client), on: socket)
        return socket
    }
}
