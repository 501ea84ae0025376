public import LinuxSystem
import PageProtocol
import SourceAgent

/// The end of a benchmark that has the memory: waits for near ends, one after the other.
public struct FarEnd: ~Copyable {
    private let listener: Listener

    /// Listens at an address.
    public init(at address: SocketAddress) throws(SystemError) {
        listener = try Listener(at: address)
    }

    /// Where it listens, with the port that the kernel chose.
    public var address: SocketAddress { listener.address }

    /// Serves near ends until the process ends.
    ///
    /// - Parameter onFailure: told why a near end was left.
    public func run(_ onFailure: (String) -> Void) throws(SystemError) {
        while true {
            guard let socket = try listener.accept() else { return }
            do {
                guard let opening = try BenchLine.receive(BenchOpening.self, from: socket, before: FarEnd.soon()),
                    opening.role == .control
                else { continue }
                var session = FarSession(client: opening.client)
                try session.serve(socket, listener)
            } catch {
                onFailure("\(error)")
            }
        }
    }

    fileprivate static func soon() -> UInt64 { MonotonicClock.now() + 10_000_000_000 }
}

/// What the far end does for one near end.
private struct FarSession: ~Copyable {
    private let client: UInt64
    private var memory: (setup: BenchSetup, region: MemoryRegion)?
    private var bare: BareService?
    private var agent: SourceAgent?

    init(client: UInt64) {
        self.client = client
    }

    mutating func serve(_ control: borrowing StreamSocket, _ listener: borrowing Listener) throws {
        defer { end() }
        while let request = try BenchLine.receive(BenchRequest.self, from: control) {
            var answer = BenchAnswer()
            do {
                try perform(request, control, listener)
            } catch {
                answer.error = "\(error)"
            }
            answer.cpuNanoseconds = ProcessClock.now()
            try BenchLine.send(answer, on: control)
        }
    }

    private mutating func perform(
        _ request: BenchRequest,
        _ control: borrowing StreamSocket,
        _ listener: borrowing Listener
    ) throws {
        switch request.step {
        case .serve:
            guard let setup = request.setup, (1...1 << 24).contains(setup.pageCount),
                (1...1024).contains(setup.chunk)
            else { throw BenchFailure("the near end asks for memory that no benchmark has") }
            try serve(setup, control, listener)
        case .push:
            try bare?.push()
            try agent?.startPush()
        case .end: end()
        case .usage: break
        }
    }

    private mutating func serve(
        _ setup: BenchSetup,
        _ control: borrowing StreamSocket,
        _ listener: borrowing Listener
    ) throws {
        end()
        let isSame = memory?.setup.content == setup.content && memory?.setup.pageCount == setup.pageCount
        if !isSame {
            memory = nil
            memory = (setup, try BenchMemory.make(setup))
        }
        guard let region = memory?.region else { return }
        // The near end connects once the memory is there.
        try BenchLine.send(BenchAnswer(), on: control)
        let lanes = try lanes(listener)
        switch setup.service {
        case .bare:
            bare = try BareService(region, chunk: setup.chunk, lanes: BareLanes(lanes))
        case .agent:
            let shape = RegionShape(
                name: region.name,
                guestAddress: 0,
                pageSize: UInt32(region.pageSize),
                pageCount: UInt64(region.pageCount)
            )
            let agent = try SourceAgent(regions: [region], table: RegionTable([shape])) { _ in }
            agent.freeze()
            try agent.attach(urgent: [SharedSocket(lanes.urgent)], bulk: SharedSocket(lanes.bulk))
            self.agent = agent
        }
    }

    /// Waits for the two lanes of the near end; whoever else connects is hung up on.
    private func lanes(_ listener: borrowing Listener) throws -> LanePair {
        var urgent: StreamSocket?
        var bulk: StreamSocket?
        while urgent == nil || bulk == nil {
            guard let socket = try listener.accept() else { throw BenchFailure("the listener was closed") }
            let opening = try BenchLine.receive(BenchOpening.self, from: socket, before: FarEnd.soon())
            guard let opening, opening.client == client else { continue }
            switch opening.role {
            case .urgent: urgent = consume socket
            case .bulk: bulk = consume socket
            case .control: continue
            }
        }
        guard let urgent = urgent.take(), let bulk = bulk.take() else { throw BenchFailure("a lane is missing") }
        return LanePair(urgent: urgent, bulk: bulk)
    }

    private mutating func end() {
        bare = nil
        agent?.detach()
        agent = nil
    }
}
