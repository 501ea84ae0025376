import Bench
import Telemetry

/// Measures what a switchover costs between two agents on this host, of a large memory against a small one, and what
/// memory the agents hold beside the workload's.
struct SwitchoverBench {
    let rounds: Int
    /// In bytes.
    let small: Int
    /// In bytes.
    let large: Int

    func run(_ onProgress: (String) -> Void) async throws -> [Comparison] {
        onProgress("downtime")
        var downtimes: [(ours: Figures, other: Figures)] = []
        var memories: [(ours: Figures, other: Figures)] = []
        for _ in 0..<rounds {
            let other = try await move(small).downtime
            let (downtime, memory) = try await move(large)
            downtimes.append((downtime, other))
            var target = Figures()
            target.mebibytes = 32 + Double(large / 4096) / 1_048_576
            memories.append((memory, target))
        }
        return [
            Comparison(
                "downtime",
                against: "\(ByteCount(bytes: small).defaultValueDescription), 1 MiB of devices each",
                downtimes
            ),
            Comparison("agent-memory", against: "32 MiB and a byte a page", memories),
        ]
    }

    private func move(_ bytes: Int) async throws -> (downtime: Figures, memory: Figures) {
        let workload = ["--memory", "\(bytes)", "--no-ledger", "--device", "large:1"]
        var (downtime, memory) = (Figures(), Figures())
        let report = try await LocalMigration(source: workload, destination: []).run { agents in
            // The agent that holds more.
            memory.mebibytes = try agents.map { Double(try $0.memory(withoutMappingsOf: bytes)) / 1_048_576 }.max()
        }
        guard report.result == .completed else {
            throw Failure("a migration to be measured did not complete: \(report.error ?? "")")
        }
        downtime.milliseconds = report.downtime / 1000
        return (downtime, memory)
    }
}
