import ArgumentParser
import Bench
import Foundation
import Histogram
import LinuxSystem
import Logging

/// Measures what it costs to move pages, on this host or between two hosts.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure what faults and the push cost, compared with the shortest code that does the same.",
        discussion: """
            Without --listen and --connect, both ends run on this host, and restored microVMs and the switchover are \
            measured as well. Between two hosts, the first holds the memory, and the second measures:

              pageferry bench --listen 10.0.0.1:7100 --insecure
              pageferry bench --connect 10.0.0.1:7100
            """
    )

    @Option(
        help: ArgumentHelp(
            "Be the far end: hold the memory, and wait for connections at this address.",
            valueName: "host:port"
        ),
        transform: readAddress
    )
    var listen: SocketAddress?

    @Option(
        help: ArgumentHelp("Measure with the far end that listens at this address.", valueName: "host:port"),
        transform: readAddress
    )
    var connect: SocketAddress?

    @Flag(help: "Allow an address that other hosts can reach, although connections are not authenticated.")
    var insecure = false

    @Option(
        help: ArgumentHelp(
            "Make only this measurement; may be given several times.",
            valueName: "measurement"
        )
    )
    var only: [BenchMeasurement] = []

    @Option(help: "The number of rounds of each measurement, 1 to 1000; their median is printed.")
    var rounds = 7

    @Option(
        help: ArgumentHelp("The memory that is pushed in a round, such as 1GiB (default: 256MiB).", valueName: "size"),
        transform: ByteCount.init
    )
    var memory = ByteCount(bytes: 256 << 20)

    @Option(
        help: ArgumentHelp(
            "The memory of a large workload, whose downtime is compared with that of a workload of --memory; measured "
                + "only if both ends run on this host (default: 4 times --memory).",
            valueName: "size"
        ),
        transform: ByteCount.init
    )
    var large: ByteCount?

    @Option(help: "The number of pages touched in a round without a push, 16 to 1048576.")
    var faults = 4000

    @Flag(help: "Print one JSON object.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "Write the distribution of each measurement's stalls, in microseconds, in HdrHistogram's text form. The name "
                + "of the measurement goes before the extension: x.hgrm becomes x-fault.hgrm.",
            valueName: "file"
        )
    )
    var hgrm: String?

    @OptionGroup var folder: ReportFolder

    @Flag(help: .hidden)
    var endWithInput = false

    private var largeBytes: Int { large?.bytes ?? memory.bytes * 4 }

    @OptionGroup var quietOption: QuietOption

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        guard listen == nil || connect == nil else { throw ValidationError("give --listen or --connect, not both") }
        guard (1...1000).contains(rounds) else { throw ValidationError("--rounds must be 1 to 1000") }
        guard (16...1 << 20).contains(faults) else { throw ValidationError("--faults must be 16 to 1048576") }
        guard (1 << 20...1 << 36).contains(memory.bytes) else {
            throw ValidationError("--memory must be 1MiB to 64GiB")
        }
        guard (memory.bytes + 1...1 << 40).contains(largeBytes) else {
            throw ValidationError("--large must be more than --memory, and at most 1TiB")
        }
        if let listen { try requireLocal(listen, unless: insecure, "") }
        if let connect { try requirePort(connect) }
        guard listen == nil || only.isEmpty && large == nil else {
            throw ValidationError("the end with --connect chooses what is measured; drop --only and --large")
        }
        guard listen == nil || folder.report == nil else {
            throw ValidationError("the end with --connect has the results; give it --report")
        }
        if connect != nil, let local = only.first(where: { $0.pages == nil }) {
            throw ValidationError("\(local) is measured with both ends on this host; drop --connect")
        }
    }

    func run() async throws {
        quietOption.apply()
        if let listen { return try serve(at: listen) }
        // Checked now: a missing folder would otherwise be noticed after minutes of measuring.
        if let hgrm { try WholeFile.requireReplaceable(distributionPath(hgrm, of: "fault")) }
        try folder.prepare()
        if let connect {
            do {
                return try report(bench(to: connect).run(measurements))
            } catch let error as SystemError {
                throw Failure("\(error.sentence); check that pageferry bench --listen runs at \(connect)")
            }
        }
        var cases = measurements.isEmpty && !isWanted(.restored) ? [] : try measureBesideFarEnd()
        if isWanted(.switchover) {
            cases += try await SwitchoverBench(rounds: rounds, small: memory.bytes, large: largeBytes).run(tell)
        }
        try report(cases)
    }

    /// Makes the measurements that need a far end, which is a process of its own.
    private func measureBesideFarEnd() throws -> [Comparison] {
        let far = try ReadyProcess(["bench", "--listen", "127.0.0.1:0", "--end-with-input"])
        defer { far.end() }
        let bench = try bench(to: SocketAddress(far.ready))
        let cases = try bench.run(measurements)
        guard isWanted(.restored) else { return cases }
        return try cases + RestoreBench(rounds: rounds, faults: faults, pages: memory.bytes / 4096).run(bench, tell)
    }

    private func isWanted(_ measurement: BenchMeasurement) -> Bool { only.isEmpty || only.contains(measurement) }

    /// What is measured, in the order of ``Bench/Measurement``.
    private var measurements: [Bench.Measurement] {
        Bench.Measurement.allCases.filter { isWanted(.init($0)) }
    }

    private func tell(_ text: String) {
        Terminal.tell("pageferry bench: \(text)")
    }

    private func serve(at address: SocketAddress) throws {
        if endWithInput { InputEnd.shared.watch() }
        let far = try FarEnd(at: address)
        Terminal.ready("\(far.address)")
        // The logger limits how many lines are written, since every connection can cause one.
        let logger = LineLog.logger("bench")
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
        if json { Terminal.show(json: try BenchTable(cases).json()) } else { Terminal.show(BenchTable(cases).lines) }
        if let hgrm { try write(cases, to: hgrm) }
        try folder.write(cases)
    }

    private func write(_ cases: [Comparison], to path: String) throws {
        for one in cases {
            guard let stalls = one.stalls else { continue }
            try WholeFile.replace(distributionPath(path, of: one.name), with: ReportFiles.text(of: stalls))
        }
    }

    /// Returns a path with the name of a case before its extension; the default extension is `hgrm`.
    private func distributionPath(_ path: String, of name: String) -> String {
        let file = URL(fileURLWithPath: path)
        let (stem, type) = (file.deletingPathExtension().lastPathComponent, file.pathExtension)
        return file.deletingLastPathComponent().appendingPathComponent(
            "\(stem)-\(name).\(type.isEmpty ? "hgrm" : type)"
        )
        .path
    }
}

/// A value of `--only`.
enum BenchMeasurement: Hashable, ExpressibleByArgument, CaseIterable, CustomStringConvertible {
    /// A measurement of the movement of pages, which needs no more than two ends.
    case pages(Bench.Measurement)
    /// Guests that are restored from a snapshot.
    case restored
    /// The downtime of migrations, and the memory of their agents.
    case switchover

    init(_ measurement: Bench.Measurement) {
        self = .pages(measurement)
    }

    init?(argument: String) {
        guard let named = BenchMeasurement.allCases.first(where: { $0.description == argument }) else { return nil }
        self = named
    }

    static let allCases = Bench.Measurement.allCases.map { BenchMeasurement($0) } + [restored, switchover]

    static var allValueStrings: [String] { allCases.map(\.description) }

    var description: String {
        switch self {
        case .pages(let measurement): measurement.rawValue
        case .restored: "restored"
        case .switchover: "switchover"
        }
    }

    /// The measurement of the movement of pages; nil for one that runs processes of its own on this host.
    var pages: Bench.Measurement? {
        if case .pages(let measurement) = self { measurement } else { nil }
    }
}
