import Bench
import Telemetry
import Workloads

/// Measures the downtime of a large workload compared with a small one, and without devices, and the memory that the
/// agents themselves use.
///
/// Both agents run on this host.
struct SwitchoverBench {
    let rounds: Int
    /// The memory of the small workload, in bytes.
    let small: Int
    /// The memory of the large workload, in bytes.
    let large: Int

    func run(_ onProgress: (String) -> Void) async throws -> [Comparison] {
        onProgress("downtime")
        var downtimes: [(ours: Figures, other: Figures)] = []
        var memories: [(ours: Figures, other: Figures)] = []
        var bare: [(ours: Figures, other: Figures)] = []
        for _ in 0..<rounds {
            let other = try await move(small).downtime
            let (downtime, memory) = try await move(large)
            bare.append((try await move(small, devices: []).downtime, other))
            downtimes.append((downtime, other))
            var target = Figures()
            target.mebibytes = 32 + Double(large / 4096) / 1_048_576
            memories.append((memory, target))
        }
        return [
            Comparison(
                "downtime",
                against: "\(ByteCount(bytes: small)), 1 MiB of devices each",
                downtimes
            ),
            Comparison("downtime-no-devices", against: "\(ByteCount(bytes: small)), 1 MiB of devices", bare),
            Comparison("agent-memory", against: "32 MiB and a byte a page", memories),
        ]
    }

    private func move(
        _ bytes: Int,
        devices: [DeviceSpecification] = [.large(mebibytes: 1)]
    ) async throws -> (downtime: Figures, memory: Figures) {
        var source = try SourceCommand.withDefaults()
        source.workloadOptions.memory = ByteCount(bytes: bytes)
        source.workloadOptions.noLedger = true
        source.workloadOptions.device = devices
        let migration = LocalMigration(source: source, destination: try .withDefaults())
        var (downtime, memory) = (Figures(), Figures())
        let report = try await migration.run { agents in
            // The agent that uses more memory counts.
            memory.mebibytes = try agents.map { Double(try $0.memory(withoutMappingsOf: bytes)) / 1_048_576 }.max()
        }
        guard report.result == .completed else {
            throw Failure("a measured migration did not complete: \(report.error ?? "")")
        }
        downtime.milliseconds = report.downtime / 1000
        return (downtime, memory)
    }
}
