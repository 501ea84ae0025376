public import LinuxSystem
import PageProtocol
import SourceAgent
import Synchronization

/// The end of a benchmark that has the memory: waits for near ends, one after the other.
public final class FarEnd: Sendable {
    private let openings: Openings<BenchOpening>
    private let arrivals: Arrivals

    /// Connections that have said what they are, until the near end that is served needs them, or its time comes.
    fileprivate final class Arrivals: Sendable {
        private static let limit = 32

        private let waiting = Mutex<[(opening: BenchOpening, socket: Handover<StreamSocket>)]>([])
        private let isThere: EventDescriptor

        init() throws(SystemError) { isThere = try EventDescriptor() }

        /// Beyond some, the oldest are hung up on.
        func add(_ socket: Handover<StreamSocket>, _ opening: BenchOpening) {
            waiting.withLock { waiting in
                if waiting.count >= Arrivals.limit { waiting.removeFirst() }
                waiting.append((opening, socket))
                isThere.raise()
            }
        }

        /// Waits for a connection.
        ///
        /// - Returns: nil if none of these comes in time.
        func next(
            within milliseconds: Int? = nil,
            where isWanted: (BenchOpening) -> Bool
        ) -> (opening: BenchOpening, socket: Handover<StreamSocket>)? {
            let deadline = milliseconds.map { MonotonicClock.now() + UInt64($0) * 1_000_000 }
            while true {
                let found = waiting.withLock { waiting in
                    isThere.clear()
                    return waiting.firstIndex { isWanted($0.opening) }.map { waiting.remove(at: $0) }
                }
                if let found { return found }
                guard let deadline else {
                    isThere.wait()
                    continue
                }
                let now = MonotonicClock.now()
                guard now < deadline, isThere.wait(milliseconds: Int((deadline - now) / 1_000_000) + 1) else {
                    return nil
                }
            }
        }
    }

    /// Listens at an address.
    public init(at address: SocketAddress) throws(SystemError) {
        let arrivals = try Arrivals()
        self.arrivals = arrivals
        openings = try Openings(
            Listener(at: address),
            name: "accept",
            Openings<BenchOpening>.Handling(
                read: { socket, bytes in try BenchLine.readOpening(from: socket, into: &bytes) },
                open: { arrivals.add($0, $1) },
                drop: { _, _ in },
                onShortage: { _ in },
                onEnd: { _ in }
            )
        )
    }

    /// Where it listens, with the port that the kernel chose.
    public var address: SocketAddress { openings.address }

    /// Serves near ends until the process ends.
    ///
    /// - Parameter onFailure: told why a near end was left.
    public func run(_ onFailure: (String) -> Void) {
        while let (opening, handover) = arrivals.next(where: { $0.role == .control }) {
            guard let socket = handover.take() else { continue }
            do {
                var session = FarSession(client: opening.client)
                try session.serve(socket, arrivals)
            } catch {
                onFailure("\(error)")
            }
        }
    }
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

    /// Seconds for a near end to ask for something: while nothing is served, and while pages may be on their way.
    private static let (idleLimit, servingLimit): (UInt64, UInt64) = (5, 3600)

    private var deadline: UInt64 {
        let seconds = bare == nil && agent == nil ? FarSession.idleLimit : FarSession.servingLimit
        return MonotonicClock.now() + seconds * 1_000_000_000
    }

    mutating func serve(_ control: borrowing StreamSocket, _ arrivals: FarEnd.Arrivals) throws {
        defer { end() }
        while let request = try BenchLine.receive(BenchRequest.self, from: control, before: deadline) {
            var answer = BenchAnswer()
            do {
                try perform(request, control, arrivals)
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
        _ arrivals: FarEnd.Arrivals
    ) throws {
        switch request.step {
        case .serve:
            guard let setup = request.setup, (1...1 << 24).contains(setup.pageCount),
                (1...1024).contains(setup.chunk)
            else { throw BenchFailure("the near end asks for memory that no benchmark has") }
            try serve(setup, control, arrivals)
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
        _ arrivals: FarEnd.Arrivals
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
        let lanes = try lanes(arrivals)
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

    /// Milliseconds for the near end to connect a lane.
    private static let laneLimit = 10_000

    /// Waits for the two lanes of the near end.
    private func lanes(_ arrivals: FarEnd.Arrivals) throws -> LanePair {
        func lane(_ role: BenchOpening.Role) throws -> StreamSocket {
            let found = arrivals.next(within: FarSession.laneLimit) { $0.client == client && $0.role == role }
            guard let socket = found?.socket.take() else {
                throw BenchFailure("the near end's \(role) lane did not come")
            }
            return socket
        }
        return LanePair(urgent: try lane(.urgent), bulk: try lane(.bulk))
    }

    private mutating func end() {
        bare = nil
        agent?.detach()
        agent = nil
    }
}
