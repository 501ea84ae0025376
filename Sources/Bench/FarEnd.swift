import Compression
package import LinuxSystem
import PageProtocol
import PageServer

/// The end of a benchmark that has the memory, and serves near ends one after the other.
package final class FarEnd: Sendable {
    private let openings: Openings<BenchOpening>
    private let arrivals: Arrivals

    /// A connection that has sent its opening.
    fileprivate struct Arrival: Sendable {
        let opening: BenchOpening
        let socket: Handover<StreamSocket>
    }

    /// Connections that wait for the near end that needs them.
    fileprivate typealias Arrivals = Mailbox<Arrival>

    /// Listens at an address.
    package init(at address: SocketAddress) throws(SystemError) {
        // A connection that no near end needs is closed when as many newer ones wait.
        let arrivals = try Arrivals(limit: 32)
        self.arrivals = arrivals
        openings = try Openings(
            Listener(at: address),
            name: "accept",
            Openings<BenchOpening>.Handling(
                read: { socket, bytes in try BenchLine.readOpening(from: socket, into: &bytes) },
                open: { arrivals.put(Arrival(opening: $1, socket: $0)) },
                drop: { _, _ in },
                onShortage: { _ in },
                onEnd: { _ in }
            )
        )
    }

    /// Where the far end listens, with the port that the kernel chose.
    package var address: SocketAddress { openings.address }

    /// Serves near ends until the process exits.
    ///
    /// - Parameter onFailure: called with the reason when the service of a near end ends with an error.
    package func run(_ onFailure: (String) -> Void) -> Never {
        while true {
            let control = arrivals.next { $0.opening.role == .control }
            guard let socket = control.socket.take() else { continue }
            do {
                var session = FarSession(client: control.opening.client)
                try session.serve(socket, arrivals)
            } catch {
                onFailure("\(error)")
            }
        }
    }
}

/// The service of one near end.
private struct FarSession: ~Copyable {
    private let client: UInt64
    /// The memory that was served last, of this process and of another.
    private var memory: [Bool: BenchMemory] = [:]
    /// Memory that another far end serves.
    private var held: MemoryRegion?
    private var bare: BareService?
    private var pageServer: PageServer?

    init(client: UInt64) {
        self.client = client
    }

    /// Seconds for a near end to send a request: while it needs nothing, and while it needs the memory.
    private static let (idleLimit, servingLimit): (UInt64, UInt64) = (5, 3600)

    private var deadline: UInt64 {
        let isIdle = bare == nil && pageServer == nil && held == nil
        let seconds = isIdle ? FarSession.idleLimit : FarSession.servingLimit
        return MonotonicClock.now() + seconds * 1_000_000_000
    }

    mutating func serve(_ control: borrowing StreamSocket, _ arrivals: FarEnd.Arrivals) throws {
        defer { end() }
        while let request = try BenchLine.receive(BenchRequest.self, from: control, before: deadline) {
            var answer = BenchAnswer()
            do {
                try perform(request, control, arrivals)
                answer.address = held?.range.address
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
        case .serve: try serve(FarSession.check(request.setup), control, arrivals)
        case .hold: held = try BenchMemory.privatePages(FarSession.check(request.setup))
        case .push:
            try bare?.push()
            try pageServer?.startPush()
        case .end: end()
        case .usage: break
        }
    }

    private static func check(_ setup: BenchSetup?) throws -> BenchSetup {
        guard let setup, (1...1 << 24).contains(setup.pageCount), (1...1024).contains(setup.chunk),
            (1...Wire.maxBulkLanes).contains(setup.lanes)
        else {
            throw BenchFailure("the setup of the near end is missing or out of bounds")
        }
        return setup
    }

    private mutating func serve(
        _ setup: BenchSetup,
        _ control: borrowing StreamSocket,
        _ arrivals: FarEnd.Arrivals
    ) throws {
        end()
        let region = try region(setup)
        // The near end connects its lanes after this answer, once the memory exists.
        try BenchLine.send(BenchAnswer(), on: control)
        let lanes = try lanes(arrivals, bulk: setup.lanes)
        switch setup.service {
        case .bare:
            guard let region = region.mapped else {
                throw BenchFailure("the bare service serves only memory of its own process")
            }
            bare = try BareService(region, setup, lanes: lanes)
        case .agent:
            let shape = RegionShape(
                name: "bench",
                guestAddress: 0,
                pageSize: UInt32(region.pageSize),
                pageCount: UInt64(region.pageCount)
            )
            let pageServer = try PageServer(
                regions: [region],
                table: RegionTable([shape]),
                polling: setup.waiting.polling,
                compression: setup.compression
            ) { _ in }
            pageServer.freeze()
            try pageServer.attach(
                urgent: [lanes.urgent],
                bulk: lanes.bulk,
                inflating: Set(Codec.allCases)
            )
            self.pageServer = pageServer
        }
    }

    /// The memory of a setup, which is kept for the next rounds.
    private mutating func region(_ setup: BenchSetup) throws -> SourceRegion {
        let isOwn = setup.memory == .own
        if let memory = memory[isOwn], memory.holds(setup) { return memory.region }
        memory[isOwn] = nil
        let made = try BenchMemory(setup)
        memory[isOwn] = made
        return made.region
    }

    /// Milliseconds for the near end to connect a lane.
    private static let laneLimit = 10_000

    /// Waits for the lanes of the near end.
    private func lanes(_ arrivals: FarEnd.Arrivals, bulk count: Int) throws -> BenchLanes {
        func lane(_ role: BenchOpening.Role, _ index: Int = 0) throws -> SharedSocket {
            let found = arrivals.next(milliseconds: FarSession.laneLimit) {
                $0.opening.client == client && $0.opening.role == role && $0.opening.lane ?? 0 == index
            }
            guard let socket = found?.socket.take() else {
                throw BenchFailure("the near end did not connect its \(role) lane")
            }
            return SharedSocket(socket)
        }
        return BenchLanes(urgent: try lane(.urgent), bulk: try (0..<count).map { try lane(.bulk, $0) })
    }

    private mutating func end() {
        bare = nil
        pageServer?.detach()
        pageServer = nil
    }
}
