import LinuxSystem
import PageFetcher
import Synchronization
import Telemetry

/// The cases of the benchmark.
extension Bench {
    /// Measures the floor of a fault: what no code that serves faults can do without.
    ///
    /// One case only asks the far end for a page, the other only answers a fault from memory at hand. Each is compared
    /// with the bare code that does both.
    func floors() throws -> [Comparison] {
        onProgress("floors")
        var trips: Rounds = []
        var local: Rounds = []
        for _ in 0..<size.rounds {
            let both = try round(BenchSetup(service: .bare, pageCount: size.faults)) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder])
                figures.take([recorder])
            }
            trips.append((try roundTrips(), both))
            local.append((try localFaults(), both))
        }
        return [
            Comparison("floor-round-trip", against: "bare remote fault", trips),
            Comparison("floor-local-fault", against: "bare remote fault", local),
        ]
    }

    private func roundTrips() throws -> Figures {
        let lanes = try far.lanes(BenchSetup(service: .bare, pageCount: size.faults))
        defer { lanes.shutdown() }
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { stage.deallocate() }
        let recorder = LatencyRecorder()
        for page in (0..<size.faults).shuffled() {
            let begin = MonotonicClock.now()
            try withUnsafeBytes(of: UInt64(page)) { try lanes.urgent.stream.send($0) }
            guard try lanes.urgent.stream.receive(exactly: stage) == 4096 else {
                throw BenchFailure("the far end has closed the urgent lane")
            }
            recorder.record(nanoseconds: MonotonicClock.now() - begin)
        }
        try far.ask(.end)
        var figures = Figures()
        figures.take([recorder])
        return figures
    }

    private func localFaults() throws -> Figures {
        let rig = try LocalRig(pageCount: size.faults)
        defer { rig.end() }
        let recorder = LatencyRecorder()
        try touchAll(rig, [recorder])
        var figures = Figures()
        figures.take([recorder])
        return figures
    }

    /// Measures single faults of one thread at random pages, without a push.
    func faults(_ stalls: LatencyRecorder) throws -> Rounds {
        try alternate("fault") { service in
            try round(BenchSetup(service: service, pageCount: size.faults)) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder], sum: service == .agent ? stalls : nil)
                figures.take([recorder])
            }
        }
    }

    /// Compares faults on memory that is not the far end's own with faults on memory that is.
    func faults(from memory: BenchSetup.Memory, _ name: String) throws -> Comparison {
        let rounds = try alternate(name, memory, .own) { memory in
            let setup = BenchSetup(service: .agent, memory: memory, pageCount: size.faults)
            return try round(setup) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder])
                figures.take([recorder])
            }
        }
        return Comparison(name, against: "fault", rounds)
    }

    /// Measures the same faults, each fetched by the thread that touches the page.
    func inThread() throws -> Comparison {
        let stalls = LatencyRecorder()
        let rounds = try alternate("fault-in-thread") { service in
            try round(BenchSetup(service: service, pageCount: size.faults), inThread: true) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder], sum: service == .agent ? stalls : nil)
                figures.take([recorder])
            }
        }
        return Comparison("fault-in-thread", against: "bare remote fault in the thread", rounds, stalls: [stalls])
    }

    /// Measures faults of one thread at random pages, while all of the memory is pushed at full rate.
    func contended(_ stalls: LatencyRecorder) throws -> Rounds {
        try alternate("fault-under-push") { service in
            let waiting: BenchSetup.Waiting = service == .agent ? .polling : .sleeping
            let setup = BenchSetup(service: service, pageCount: size.pushedPages, waiting: waiting)
            return try round(setup) { rig, figures in
                let recorder = LatencyRecorder()
                let begin = MonotonicClock.now()
                try far.ask(.push)
                try touchWhilePushed(rig, recorder, service == .agent ? stalls : nil)
                finish(&figures, since: begin)
                figures.take([recorder])
            }
        }
    }

    /// Measures the push of memory that no thread touches.
    func push() throws -> Comparison {
        let rounds = try alternate("push") { service in
            var best = try pushAlone(BenchSetup(service: service, pageCount: size.pushedPages))
            if service == .bare {
                let other = try pushAlone(BenchSetup(service: service, pageCount: size.pushedPages, chunk: 64))
                if other.seconds ?? .infinity < best.seconds ?? .infinity { best = other }
            }
            return best
        }
        return Comparison("push", against: "bare push, the better of 16 and 64 pages", rounds)
    }

    /// Compares the push of memory that is not the far end's own with the push of memory that is.
    func push(from memory: BenchSetup.Memory, _ name: String) throws -> Comparison {
        let rounds = try alternate(name, memory, .own) {
            try pushAlone(BenchSetup(service: .agent, memory: $0, pageCount: size.pushedPages))
        }
        return Comparison(name, against: "push", rounds)
    }

    /// Compares pushes over several connections with a push over one.
    func pushOverLanes() throws -> [Comparison] {
        try [2, 4].map { lanes in
            let name = "push-lanes-\(lanes)"
            let rounds = try alternate(name, lanes, 1) {
                try pushAlone(BenchSetup(service: .agent, pageCount: size.pushedPages, lanes: $0))
            }
            return Comparison(name, against: "push", rounds)
        }
    }

    /// Nanoseconds in each direction through the relay: a round trip of 40 ms.
    private static let delay: UInt64 = 20_000_000

    /// Compares pushes to a distant host with the bare push over as many connections.
    func pushThroughDelay() throws -> [Comparison] {
        let relay = try DelayRelay(to: far.address, delay: Bench.delay)
        defer { relay.end() }
        return try [1, 2, 4].map { lanes in
            let name = "push-delayed-\(lanes)"
            let rounds = try alternate(name) { service in
                let setup = BenchSetup(service: service, pageCount: size.pushedPages, lanes: lanes, chunk: 64)
                return try pushAlone(setup, through: relay)
            }
            let connections = lanes == 1 ? "1 connection" : "\(lanes) connections"
            return Comparison(name, against: "bare push over \(connections), delayed too", rounds)
        }
    }

    /// Measures one push.
    ///
    /// - Parameters:
    ///   - relay: the relay through which the lanes are connected; nil for the link as it is.
    ///   - rate: the rate of the link, in bytes per second; nil for the link as it is.
    func pushAlone(
        _ setup: BenchSetup,
        through relay: DelayRelay? = nil,
        over rate: Int? = nil
    ) throws -> Figures {
        try round(setup, through: relay, over: rate) { rig, figures in
            let before = try usage()
            let begin = MonotonicClock.now()
            try far.ask(.push)
            try wait(for: rig)
            finish(&figures, since: begin, pages: setup.pageCount)
            let gibibytes = Double(setup.pageCount) / 262_144
            figures.cpuSecondsPerGiB = (try usage() - before) / 1e9 / gibibytes
        }
    }

    /// Compares the push of zero pages with the push of random ones.
    func zeroPush() throws -> Comparison {
        onProgress("push-zeros")
        var rounds: Rounds = []
        for _ in 0..<size.rounds {
            let zeros = try pushAlone(BenchSetup(service: .agent, content: .zeros, pageCount: size.pushedPages))
            rounds.append((zeros, try pushAlone(BenchSetup(service: .agent, pageCount: size.pushedPages))))
        }
        return Comparison("push-zeros", against: "push", rounds)
    }

    /// Compares a push during which a thread touches random pages with the push alone.
    ///
    /// The bare code is measured likewise, to show what the processors leave to such a push.
    func pushWithReader() throws -> [Comparison] {
        [
            Comparison("push-with-reader", against: "push", try pushWithReader(.agent)),
            Comparison("bare-push-with-reader", against: "bare push", try pushWithReader(.bare)),
        ]
    }

    private func pushWithReader(_ service: BenchSetup.Service) throws -> Rounds {
        onProgress(service == .agent ? "push-with-reader" : "bare-push-with-reader")
        var rounds: Rounds = []
        for _ in 0..<size.rounds {
            let setup = BenchSetup(service: service, pageCount: size.pushedPages)
            let read = try round(setup) { rig, figures in
                let begin = MonotonicClock.now()
                try far.ask(.push)
                try touchWhilePushed(rig, LatencyRecorder(), nil)
                finish(&figures, since: begin)
            }
            rounds.append((read, try pushAlone(setup)))
        }
        return rounds
    }

    /// Compares a thread that reads page after page with prefetch to one that reads without prefetch.
    func sequential() throws -> Comparison {
        onProgress("sequential")
        var rounds: Rounds = []
        for _ in 0..<size.rounds {
            rounds.append((try readInOrder(.streams()), try readInOrder(.none)))
        }
        return Comparison("sequential", against: "one fault a page", rounds)
    }

    private func readInOrder(_ prefetch: Prefetch) throws -> Figures {
        let pageCount = size.faults * 4
        return try round(BenchSetup(service: .agent, pageCount: pageCount), prefetch: prefetch) { rig, figures in
            let stalls = LatencyRecorder()
            let wrong = Wrong()
            let region = rig.memory.region
            // The toucher is dropped at once, which waits for its thread.
            _ = try Toucher {
                for page in 0..<pageCount {
                    let (value, nanoseconds) = Toucher.touch(region.page(page))
                    if nanoseconds > Bench.presentAccess { stalls.record(nanoseconds: nanoseconds) }
                    if value != UInt64(page) + 1 { wrong.page.store(page, ordering: .relaxed) }
                }
            }
            try check(rig, wrong)
            figures.seconds = Double(LatencyRecorder.sum(of: [stalls]).nanoseconds) / 1e9
        }
    }

    /// Nanoseconds that an access to a page which is present, but in no cache, does not exceed.
    static let presentAccess: UInt64 = 1000

    /// Compares the faults of several threads at once with those of one thread.
    func threads() throws -> [Comparison] {
        var rounds: [Int: Rounds] = [:]
        onProgress("fault-threads")
        for _ in 0..<size.rounds {
            let one = try threaded(1)
            for count in [2, 4, 8, 16] { rounds[count, default: []].append((try threaded(count), one)) }
        }
        return rounds.keys.sorted().map { Comparison("fault-threads-\($0)", against: "one thread", rounds[$0] ?? []) }
    }

    private func threaded(_ count: Int) throws -> Figures {
        try round(BenchSetup(service: .agent, pageCount: size.faults * 4)) { rig, figures in
            let recorders = (0..<count).map { _ in LatencyRecorder() }
            let begin = MonotonicClock.now()
            try touchAll(rig, recorders)
            figures.seconds = Double(MonotonicClock.now() - begin) / 1e9
            figures.mebibytesPerSecond = Double(rig.memory.region.pageCount) / 256 / (figures.seconds ?? 1)
            figures.take(recorders)
        }
    }
}
