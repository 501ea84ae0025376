import ArgumentParser
import Bench
import Foundation
import Histogram
import LinuxSystem
import Logging

/// Measures what moving a page costs here, or between two hosts.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure faults and the push against the least code that does the same, in turn.",
        discussion: """
            Both ends run on this host, or the far end elsewhere. Example, on two hosts:

              pageferry bench --listen 10.0.0.1:7100 --insecure
              pageferry bench --connect 10.0.0.1:7100
            """
    )

    @Option(
        help: ArgumentHelp("Be the far end: have the memory, and wait for near ends.", valueName: "host:port"),
        transform: readAddress
    )
    var listen: SocketAddress?

    @Option(
        help: ArgumentHelp("Measure against the far end that listens there.", valueName: "host:port"),
        transform: readAddress
    )
    var connect: SocketAddress?

    @Flag(help: "Allow listening where other hosts can reach the far end.")
    var insecure = false

    @Option(help: "Rounds of each case; what is printed is their median.")
    var rounds = 7

    @Option(help: ArgumentHelp("Memory that is pushed in a round, such as 256MiB.", valueName: "size"))
    var memory = ByteCount(bytes: 256 << 20)

    @Option(
        help: ArgumentHelp(
            "Memory whose downtime is held against that of --memory, where both ends are on this host (default: 4 times "
                + "--memory).",
            valueName: "size"
        )
    )
    var large: ByteCount?

    @Option(help: "Pages that are touched in a round where nothing is pushed.")
    var faults = 4000

    @Flag(help: "Print one JSON object.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "Write the distribution of each case's stalls, in microseconds, in HdrHistogram's text form: to FILE with "
                + "the case's name before its extension.",
            valueName: "file"
        )
    )
    var hgrm: String?

    @Flag(help: .hidden)
    var endWithInput = false

    private var largeBytes: Int { large?.bytes ?? memory.bytes * 4 }

    func validate() throws {
        guard listen == nil || connect == nil else { throw ValidationError("give --listen or --connect, not both") }
        guard (1...1000).contains(rounds) else { throw ValidationError("--rounds is 1 to 1000") }
        guard (16...1 << 20).contains(faults) else { throw ValidationError("--faults is 16 to 1048576") }
        guard (1 << 20...1 << 36).contains(memory.bytes) else { throw ValidationError("--memory is 1MiB to 64GiB") }
        guard (memory.bytes + 1...1 << 40).contains(largeBytes) else {
            throw ValidationError("--large is more than --memory, and at most 1TiB")
        }
        if let listen, !listen.isLocal, !insecure {
            throw ValidationError("\(listen) can be reached from other hosts; use 127.0.0.1, or say --insecure")
        }
    }

    func run() async throws {
        if let listen { return try serve(at: listen) }
        if let connect { return try report(bench(to: connect).run()) }
        let far = try ReadyProcess(["bench", "--listen", "127.0.0.1:0", "--end-with-input"])
        defer { far.end() }
        let bench = try bench(to: SocketAddress(far.ready))
        let restore = RestoreBench(rounds: rounds, faults: faults, pages: memory.bytes / 4096)
        let switchover = SwitchoverBench(rounds: rounds, small: memory.bytes, large: largeBytes)
        try report(bench.run() + restore.run(bench, tell) + (await switchover.run(tell)))
    }

    private func tell(_ text: String) {
        Terminal.say("pageferry bench: \(text)")
    }

    private func serve(at address: SocketAddress) throws {
        if endWithInput { InputEnd.shared.watch() }
        let far = try FarEnd(at: address)
        try Terminal.ready("\(far.address)")
        // Whoever reaches it can make it say this as often as it likes.
        let logger = LineLog.logger("bench", .notice)
        far.run { logger.notice("\($0)") }
    }

    private func bench(to address: SocketAddress) throws -> Bench {
        var size = Bench.Size()
        size.rounds = rounds
        size.faults = faults
        size.pushedPages = memory.bytes / 4096
        return try Bench(to: address, size: size, onProgress: tell)
    }

    private func report(_ cases: [Comparison]) throws {
        if let hgrm { try write(cases, to: hgrm) }
        if json { Terminal.show(json: try BenchTable(cases).json()) } else { Terminal.show(BenchTable(cases).lines) }
    }

    private func write(_ cases: [Comparison], to path: String) throws {
        let file = URL(fileURLWithPath: path)
        for one in cases {
            guard let stalls = one.stalls else { continue }
            var text = ""
            stalls.outputPercentileDistribution(to: &text, outputValueUnitScalingRatio: 1000)
            let stem = file.deletingPathExtension().lastPathComponent
            let name = "\(stem)-\(one.name).\(file.pathExtension.isEmpty ? "hgrm" : file.pathExtension)"
            let target = file.deletingLastPathComponent().appendingPathComponent(name)
            try text.write(to: target, atomically: true, encoding: .utf8)
        }
    }
}
