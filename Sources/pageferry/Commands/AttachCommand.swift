import ArgumentParser
import FaultHandler
import Foundation
import LinuxSystem
import Logging
import PageFetcher
import Synchronization
import Web
import WorkingSet

/// Serves the faults of guests that are restored from a snapshot on another host.
struct AttachCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Restore microVMs from a snapshot on another host, as the page fault handler of Firecracker.",
        discussion: """
            Give the socket to Firecracker as a memory backend of type Uffd. Every guest has a worker process of its \
            own, which fetches a page when the guest touches it or shortly before.

            Example:

              pageferry attach --socket /run/pageferry-uffd.sock --from 10.0.0.1:7200

            For a Firecracker that the jailer runs as user and group 1234, the socket is in the jail:

              pageferry attach --socket /srv/jailer/firecracker/vm1/root/run/uffd.sock \\
                --socket-owner 1234:1234 --from 10.0.0.1:7200
            """
    )

    @OptionGroup var sockets: AttachSocketOptions

    @OptionGroup var limits: GuestLimitOptions

    @Option(
        help: ArgumentHelp(
            "The address at which `pageferry serve` serves the snapshot.",
            valueName: "host:port|unix:path"
        ),
        transform: readAddress
    )
    var from: SocketAddress

    @Option(
        help: ArgumentHelp(
            "How long the server may be unreachable, or no worker may run, before --on-lost is applied to a guest that "
                + "needs a page (default: 60s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var giveUp = TimeSpan(nanoseconds: 60_000_000_000)

    @Option(
        help: ArgumentHelp(
            "What happens to a guest after --give-up: kill ends its process; hold lets it wait until its pages can be "
                + "fetched again (default: hold).",
            valueName: "kill|hold"
        ),
        transform: { text in
            guard let policy = LostPolicy(rawValue: text) else { throw ValidationError("write kill or hold") }
            return policy
        }
    )
    var onLost = LostPolicy.hold

    @Option(
        help: ArgumentHelp(
            "What happens to a process whose hand-off is refused, which would wait for its memory for ever: kill ends "
                + "it; leave leaves it as it is (default: kill).",
            valueName: "kill|leave"
        ),
        transform: { text in
            guard let policy = RefusedPolicy(rawValue: text) else { throw ValidationError("write kill or leave") }
            return policy
        }
    )
    var onRefused = RefusedPolicy.kill

    @Option(
        help: ArgumentHelp(
            "The folder, best on tmpfs, that keeps what the next handler needs to keep serving if this one dies (default: "
                + "/run/pageferry/attach-NAME, where NAME is the socket's path).",
            valueName: "folder"
        ),
        completion: .directory
    )
    var state: String?

    @Option(
        help: ArgumentHelp(
            "Record in this file which pages a guest touches, in their order. The record of a later guest replaces it.",
            valueName: "file"
        ),
        completion: .file()
    )
    var record: String?

    @Option(
        help: ArgumentHelp(
            "How long pages are recorded after a guest has attached, 1ms to 3600s (default: 10s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var window: TimeSpan?

    @Option(
        help: ArgumentHelp(
            "When a guest attaches, fetch the pages of this record ahead, in their order.",
            valueName: "file"
        ),
        completion: .file()
    )
    var prefetch: String?

    @Option(
        defaultAsFlag: "0",
        // With the usual strategy, the parser drops the value of `--fill=RATE` if another option follows.
        parsing: .next,
        help: ArgumentHelp(
            "Fetch the pages that a guest does not touch too, after those of --prefetch, at most this fast. A guest that "
                + "has all of its pages needs its server no more (default without a rate: as fast as the server sends).",
            valueName: "bytes/s"
        )
    )
    // Read by `fillRate`: with `defaultAsFlag`, the parser takes a value that it cannot read for none.
    var fill: String?

    @Option(
        help: ArgumentHelp(
            "The name of a guest in metrics, log lines and on the live page: socket for the file name of its socket "
                + "without .sock, or the name of a member with a text that its process adds to the first region of the "
                + "hand-off (default: guests have no names).",
            valueName: "socket|member"
        ),
        transform: { text in
            guard let names = GuestNames(text) else {
                throw ValidationError("write socket, or the name of a member, of 1 to 64 letters, digits, - and _")
            }
            return names
        }
    )
    var nameFrom: GuestNames?

    @Option(
        help: ArgumentHelp(
            "Write a report of each guest into a folder of its own in this folder, once the guest has ended or has all of "
                + "its pages: report.html, report.json, and service.hgrm.",
            valueName: "folder"
        ),
        completion: .directory
    )
    var report: String?

    @Flag(help: "Allow an address of --http that other hosts can reach, although it is not encrypted.")
    var insecure = false

    @OptionGroup var httpOptions: HTTPOptions

    @OptionGroup var service: ServiceOptions

    private var recordMilliseconds: UInt64 { (window?.nanoseconds ?? 10_000_000_000) / 1_000_000 }

    private var fillRate: FillRate? {
        get throws {
            guard let fill else { return nil }
            let bytes: Int
            do {
                bytes = try Bandwidth(fill).bytesPerSecond
            } catch {
                throw ValidationError("the value '\(fill)' is invalid for '--fill <bytes/s>': \(error)")
            }
            return bytes == 0 ? .unlimited : FillRate(bytesPerSecond: UInt64(bytes))
        }
    }

    func validate() throws {
        try httpOptions.requireLocal(unless: insecure)
        _ = try fillRate
        guard window == nil || record != nil else {
            throw ValidationError("--window is how long pages are recorded: add --record, or drop --window")
        }
        guard (1...3_600_000).contains(recordMilliseconds) else {
            throw ValidationError("--window must be 1ms to 3600s")
        }
        guard record == nil || prefetch == nil && fill == nil else {
            throw ValidationError(
                "touches of pages that were fetched ahead cannot be recorded: give --record, or --prefetch and --fill"
            )
        }
        guard try !sockets.addresses().contains(from) else {
            throw ValidationError("--socket and --from name the same socket; name the one of pageferry serve as --from")
        }
        if case .tcp = from { try requirePort(from) }
    }

    /// The address of the snapshot server, as `HandlerSettings` takes it: `HOST:PORT`, or `unix:` and an absolute path.
    private var source: String {
        switch from {
        case .tcp: String(from.description.dropFirst("tcp:".count))
        case .unix(let path): "unix:\(absolute(path))"
        }
    }

    /// The folder for the guests' state, which a handler at the same first socket finds again.
    private func stateFolder(for socket: SocketAddress?) throws -> String {
        if let state { return absolute(state) }
        let environment = ProcessInfo.processInfo.environment
        let parent: String
        // The folders of a service (RuntimeDirectory=), of root, and of a user who has logged in.
        if let service = environment["RUNTIME_DIRECTORY"]?.split(separator: ":").first {
            parent = String(service)
        } else if PeerProcess.ownUser == 0 {
            parent = "/run/pageferry"
        } else if let user = environment["XDG_RUNTIME_DIR"] {
            parent = "\(user)/pageferry"
        } else {
            throw ValidationError("there is no folder for the guests' state: name one with --state")
        }
        guard case .unix(let path) = socket else { return "\(parent)/attach" }
        return "\(parent)/attach-" + absolute(path).split(separator: "/").joined(separator: "-")
    }

    /// Warns if nobody answers at the address of the snapshot server, which may be started later.
    private func warnIfUnserved(_ logger: Logger) {
        do throws(SystemError) {
            _ = try StreamSocket(connectingTo: from, timeout: StreamSocket.shortTimeout)
        } catch {
            logger.warning("\(error.sentence); guests wait for their pages until pageferry serve runs there")
        }
    }

    private func absolute(_ path: String) -> String { URL(fileURLWithPath: path).path }

    func run() async throws {
        // Before any other descriptor is opened.
        let given = ServiceSockets(leaving: ServiceStore.prefix)
        let manager = Service.manager
        DescriptorLimit.raise()
        let logger = service.logger("attach")
        EndSignals.watch()
        // Checked now, so that a broken record, or a file that cannot be written, is reported before a guest attaches.
        if let prefetch { _ = try WorkingSet(contentsOf: prefetch) }
        if let record { try WholeFile.requireReplaceable(record) }
        let reports = report.map { GuestReports(in: absolute($0), logger) }
        try reports?.prepare()
        let settings = HandlerSettings(
            source: source,
            giveUpSeconds: Double(giveUp.nanoseconds) / 1e9,
            onLost: onLost,
            peerTimeoutSeconds: Double(service.peerTimeout.nanoseconds) / 1e9,
            faultThreads: FaultOptions.usualThreads,
            pollNanoseconds: service.pollOption.poll.nanoseconds,
            record: record.map(absolute),
            recordMilliseconds: UInt32(recordMilliseconds),
            prefetch: prefetch.map(absolute),
            fill: try fillRate,
            names: nameFrom
        )
        let roster = GuestRoster(limits.limits)
        let listeners = try sockets.listeners(given, logger)
        let observed = ObservedHandler(roster)
        // Before guests are adopted: a handler that exits with an error must not have replaced their workers.
        let web = try await httpOptions.serve(observed, logger)
        let listener = try GuestListener(
            at: listeners,
            keeping: stateFolder(for: sockets.addresses().first ?? given.addresses.first),
            ServiceStore(manager, given: given.unclaimed, logger: logger),
            onRefused: onRefused,
            roster: roster,
            settings: settings,
            logger: logger,
            reporting: reports?.write
        )
        let isEnding = Atomic<Bool>(false)
        let logLevel = listener.logLevel
        EndSignals.take(onHangUp: Reload.handler(logger) { logLevel.level = $0 }) {
            if isEnding.exchange(true, ordering: .relaxed) {
                logger.warning("exiting; workers keep serving their guests, but a worker that dies is not replaced")
                Pageferry.exit(0)
            }
            let what = "accepting no more guests; exiting when all guests have ended"
            logger.notice("\(what)")
            Service.stopping(what, logger)
            listener.close()
        }
        observed.noteReady()
        warnIfUnserved(logger)
        let places = listener.addresses.map(\.description).joined(separator: " ")
        Service.watch(logger) { listener.check() }
        Service.ready(places, watched: web, logger)
        // The wait must take none of the few threads that serve the live page.
        let result = await withCheckedContinuation { continuation in
            Thread.detachNewThread { continuation.resume(returning: Result { try listener.run() }) }
        }
        await web?.server.end()
        try result.get()
    }
}
