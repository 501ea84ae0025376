import ArgumentParser
import LinuxSystem
import Logging
import Snapshots
import Web

/// Serves the memory of a snapshot.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve the memory file of a snapshot, page by page, to hosts that restore it.",
        discussion: """
            The content of the file must not change while it is served. If it has changed when a guest connects or asks \
            for a page, the command tells all guests that they can no longer be served, and exits with status 3, before \
            it sends a page that was read after the change. If only the times of the file have changed, it serves on.

            A guest takes pages only from the file that it was restored from. After a restart of this command, that is \
            the same file if nobody has changed it meanwhile. With --full-digest, both before and after the restart, it \
            is any file of the same content: also a copy, on another host too.

            Example:

              pageferry serve --snapshot /srv/vm.mem --listen 10.0.0.1:7200 --insecure
            """
    )

    @Option(help: ArgumentHelp("The memory file of the snapshot.", valueName: "file"), completion: .file())
    var snapshot: String

    @Option(
        help: ArgumentHelp(
            "The address to listen at: HOST:PORT, or unix:PATH, which only this user of this host can open.",
            valueName: "address"
        ),
        transform: readAddress
    )
    var listen: SocketAddress

    @Flag(
        help: """
            Read all of the file at the start, and prove by a digest of all pages which snapshot it is. A GiB takes about \
            a second.
            """
    )
    var fullDigest = false

    @Option(
        help: ArgumentHelp(
            """
            The most connections at a time, at least \(SnapshotServer.leastConnections). A guest takes two to six \
            (default: as many as the hard limit of `ulimit -n` allows).
            """,
            valueName: "count"
        )
    )
    var maxConnections: Int?

    @Flag(help: "Allow addresses that other hosts can reach, although connections are not authenticated or encrypted.")
    var insecure = false

    @OptionGroup var httpOptions: HTTPOptions

    @OptionGroup var service: ServiceOptions

    func validate() throws {
        try httpOptions.requireLocal(unless: insecure)
        try requireLocal(listen, unless: insecure, ", and everyone who can connect can read the snapshot")
        if let maxConnections, maxConnections < SnapshotServer.leastConnections {
            throw ValidationError(
                "--max-connections must be at least \(SnapshotServer.leastConnections), which one guest may take"
            )
        }
    }

    func run() async throws {
        // Before children and threads, which must not hear of the manager.
        _ = Service.manager
        DescriptorLimit.raise()
        let logger = service.logger("serve")
        EndSignals.watch()
        let file = try SnapshotFile(snapshot, isProvedFully: fullDigest)
        let most = try SnapshotServer.mostConnections()
        if let maxConnections, maxConnections > most {
            throw Failure(
                "cannot hold \(maxConnections) connections: the limit on descriptors leaves room for \(most); "
                    + "raise the hard limit of `ulimit -n`, or lower --max-connections"
            )
        }
        let server = try SnapshotServer(
            file,
            at: listen,
            peerTimeout: service.peerTimeout.duration,
            connectionLimit: maxConnections ?? most,
            polling: service.pollOption.poll.duration,
            logger: logger
        )
        EndSignals.take(onHangUp: Reload.handler(logger)) {
            Service.stopping("telling the guests", logger)
            server.end()
        }
        if !server.address.isLocal {
            logger.warning("\(server.address) is not authenticated: everyone who can connect can read \(snapshot)")
        } else if case .tcp = server.address, !file.mapped.isReadableByAll {
            let remedy = "to serve this host, use --listen unix:PATH, which only its owner can open"
            logger.warning(
                "every user of this host can read \(snapshot), a private file, at \(server.address); \(remedy)"
            )
        }
        let web = try await httpOptions.serve(ObservedServer(server, file), logger)
        Service.watchTasks(logger) { await server.check() }
        Service.ready("\(server.address)", watched: web, logger)
        do {
            try await server.run()
        } catch {
            await web?.server.end()
            throw error
        }
        await web?.server.end()
    }
}
