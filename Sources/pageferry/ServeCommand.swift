import ArgumentParser
import LinuxSystem
import Logging
import Snapshots

/// Serves a snapshot's memory.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve the memory of a snapshot, page by page, to those who restore it elsewhere.",
        discussion: """
            The file is only read, and nobody may change it meanwhile: that ends the service with status 1. Example:

              pageferry serve --snapshot /srv/vm.mem --listen 10.0.0.1:7200 --insecure
            """
    )

    @Option(help: ArgumentHelp("The file that holds the guest's memory.", valueName: "file"))
    var snapshot: String

    @Option(
        help: ArgumentHelp(
            "Where to wait for those who restore it: HOST:PORT, or unix:PATH for this user of this host only.",
            valueName: "address"
        ),
        transform: readAddress
    )
    var listen: SocketAddress

    @Flag(help: "Allow listening where other hosts can reach the server, though channels are not authenticated.")
    var insecure = false

    @OptionGroup var service: ServiceOptions

    func validate() throws {
        guard listen.isLocal || insecure else {
            throw ValidationError(
                "\(listen) can be reached from other hosts, and whoever reaches it can read the snapshot; use 127.0.0.1, "
                    + "or say --insecure"
            )
        }
    }

    func run() async throws {
        let logger = service.logger("serve")
        let file = try MappedFile(snapshot)
        let server = try SnapshotServer(file, at: listen, peerTimeout: service.peerTimeout.duration, logger: logger)
        let signals = EndSignals { server.end() }
        if !server.address.isLocal {
            logger.warning("\(server.address) gives \(snapshot) to whoever reaches it, unauthenticated")
        } else if case .tcp = server.address, !file.isReadableByAll {
            let remedy = "to serve this host, use --listen unix:PATH, which is of mode 0600"
            logger.warning("\(server.address) gives \(snapshot), which not all may read, to every user here; \(remedy)")
        }
        try Terminal.ready("\(server.address)")
        try await server.run()
        withExtendedLifetime(signals) {}
    }
}
