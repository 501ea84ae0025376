import ArgumentParser
import FaultHandler
import Foundation
import LinuxSystem
import Logging
import Synchronization
import WorkingSet

/// Serves the faults of guests that are restored from a snapshot elsewhere.
struct AttachCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Serve microVMs that restore a snapshot from another host: a page fault handler for Firecracker.",
        discussion: """
            Give Firecracker the socket as its memory backend of type Uffd. Example:

              pageferry attach --socket /run/pageferry-uffd.sock --from 10.0.0.1:7200
            """
    )

    @Option(help: ArgumentHelp("The Unix socket at which microVMs hand their userfaultfd over.", valueName: "path"))
    var socket: String

    @Option(
        help: ArgumentHelp("Where `pageferry serve` has the snapshot.", valueName: "host:port|unix:path"),
        transform: readAddress
    )
    var from: SocketAddress

    @Option(
        help: ArgumentHelp(
            "How long a guest that needs a page waits for a server that is gone (default: 60s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var giveUp = TimeSpan(nanoseconds: 60_000_000_000)

    @Option(
        help: ArgumentHelp(
            "What to do with it then: kill its process, or hold it stopped until its pages can be had (default: hold).",
            valueName: "kill|hold"
        ),
        transform: { text in
            guard let policy = LostPolicy(rawValue: text) else { throw ValidationError("it is kill or hold") }
            return policy
        }
    )
    var onLost = LostPolicy.hold

    @Option(
        help: ArgumentHelp(
            "Record which pages a guest touches, in order, in a file; of several guests the one that is last.",
            valueName: "file"
        )
    )
    var record: String?

    @Option(
        help: ArgumentHelp("For how long that is recorded after it has attached (default: 10s).", valueName: "time"),
        transform: readTime
    )
    var window: TimeSpan?

    @Option(
        help: ArgumentHelp("Fetch the pages of such a record when a guest attaches, in their order.", valueName: "file")
    )
    var prefetch: String?

    @OptionGroup var service: ServiceOptions

    private var recordMilliseconds: UInt64 { (window?.nanoseconds ?? 10_000_000_000) / 1_000_000 }

    func validate() throws {
        guard window == nil || record != nil else {
            throw ValidationError("--window is for how long pages are recorded; give --record, or drop it")
        }
        guard (1...3_600_000).contains(recordMilliseconds) else {
            throw ValidationError("--window is 1ms to 3600s")
        }
        guard record == nil || prefetch == nil else {
            throw ValidationError(
                "pages that are fetched ahead are not seen to be touched: give --record or --prefetch"
            )
        }
        do {
            _ = try SocketAddress("unix:\(socket)")
        } catch {
            throw ValidationError("--socket: \(error.reason)")
        }
    }

    /// `HOST:PORT`, or `unix:` and an absolute path.
    private var source: String {
        switch from {
        case .tcp: String(from.description.dropFirst("tcp:".count))
        case .unix(let path): "unix:\(absolute(path))"
        }
    }

    private func absolute(_ path: String) -> String { URL(fileURLWithPath: path).path }

    func run() async throws {
        let logger = service.logger("attach")
        // Looked at now, so that a record which is none, or cannot be written, is told before anybody counts on it.
        if let prefetch { _ = try WorkingSet(contentsOf: prefetch) }
        if let record { try WholeFile.requireReplaceable(record) }
        let settings = HandlerSettings(
            source: source,
            giveUpSeconds: Double(giveUp.nanoseconds) / 1e9,
            onLost: onLost,
            peerTimeoutSeconds: Double(service.peerTimeout.nanoseconds) / 1e9,
            faultThreads: min(4, max(1, Processors.online / 4)),
            record: record.map(absolute),
            recordMilliseconds: UInt32(recordMilliseconds),
            prefetch: prefetch.map(absolute)
        )
        let listener = try GuestListener(at: socket, settings: settings, logger: logger)
        let isEnding = Atomic<Bool>(false)
        let signals = EndSignals {
            if isEnding.exchange(true, ordering: .relaxed) {
                logger.warning("workers serve their guests on, and nobody follows one that dies")
                Foundation.exit(0)
            }
            logger.notice("no more guests are taken; those that are here are served until they have ended")
            listener.close()
        }
        try Terminal.ready("\(listener.address)")
        try listener.run()
        withExtendedLifetime(signals) {}
    }
}

/// Serves one guest, in a process that `pageferry attach` starts.
struct AttachWorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "attach-worker", shouldDisplay: false)

    @Option
    var logLevel = Logger.Level.notice

    func run() async throws {
        var inherited = Inherited()
        let task = try GuestTask(&inherited)
        let logger = LineLog.logger("attach", logLevel)
        let end = try GuestService(task, inherited, logger: logger).run()
        // Without waiting for threads: the kernel ends them, and nothing is left to be kept.
        Foundation.exit(end.rawValue)
    }
}
