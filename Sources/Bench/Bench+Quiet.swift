import LinuxSystem
import PageFetcher
import Synchronization
import Telemetry

/// Faults on a host where nothing else runs, so that processors become idle between them.
extension Bench {
    /// How a round of quiet faults is served.
    private struct Way: Hashable {
        var service: BenchSetup.Service
        var waiting: BenchSetup.Waiting
    }

    /// Measures single faults of one thread that works for a while after each, without a push.
    ///
    /// The agents poll before they sleep. They are compared with bare code that polls, and with agents that sleep at
    /// once, beside bare code that does the same.
    func quietFaults() throws -> [Comparison] {
        try quietFaultsOfFaultThreads() + [quietInThread()]
    }

    /// Measures faults that the touching thread resolves itself, with work of 50 µs after each.
    private func quietInThread() throws -> Comparison {
        let rounds = try alternate("quiet-fault-in-thread") { service in
            try quietRound(Way(service: service, waiting: .polling), think: 50, inThread: true)
        }
        return Comparison("quiet-fault-in-thread", against: "bare remote fault in the thread, polling", rounds)
    }

    private func quietFaultsOfFaultThreads() throws -> [Comparison] {
        try [0, 50, 200, 1000].flatMap { think -> [Comparison] in
            let name = "quiet-fault-\(think)us"
            onProgress(name)
            let ways = [
                Way(service: .agent, waiting: .polling), Way(service: .bare, waiting: .polling),
                Way(service: .agent, waiting: .sleeping), Way(service: .bare, waiting: .sleeping),
            ]
            var rounds: [Way: [Figures]] = [:]
            for number in 0..<size.rounds {
                // The way that goes first alternates, so that a drift harms all equally.
                for index in ways.indices {
                    let way = ways[(index + number) % ways.count]
                    rounds[way, default: []].append(try quietRound(way, think: think))
                }
            }
            func compared(_ name: String, _ ours: Way, _ against: String, _ other: Way) -> Comparison {
                Comparison(
                    name,
                    against: against,
                    zip(rounds[ours] ?? [], rounds[other] ?? []).map { (ours: $0, other: $1) }
                )
            }
            return [
                compared(name, ways[0], "bare remote fault, polling", ways[1]),
                compared("\(name)-polling", ways[0], "agents that sleep", ways[2]),
                compared("\(name)-sleeping", ways[2], "bare remote fault", ways[3]),
            ]
        }
    }

    private func quietRound(_ way: Way, think: Int, inThread: Bool = false) throws -> Figures {
        // Fewer faults if their pauses would make the round long.
        let faults = max(16, think < 1000 ? size.faults : size.faults / 4)
        let setup = BenchSetup(service: way.service, pageCount: faults, waiting: way.waiting)
        return try round(setup, prefetch: .none, inThread: inThread) { rig, figures in
            let recorder = LatencyRecorder()
            let (before, touching) = (try usage(), try touchAll(rig, [recorder], think: UInt64(think) * 1000))
            figures.take([recorder])
            figures.cpuMicrosecondsPerFault = (try usage() - before - Double(touching)) / 1000 / Double(faults)
        }
    }
}
