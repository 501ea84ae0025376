import ArgumentParser
import Dispatch
import Foundation
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
        help: ArgumentHelp("Where to wait for those who restore it.", valueName: "host:port"),
        transform: readAddress
    )
    var listen: SocketAddress

    @Flag(help: "Allow listening where other hosts can reach the server, though channels are not authenticated.")
    var insecure = false

    @Option(
        help: ArgumentHelp("The longest silence of a peer before its connection counts as broken.", valueName: "time")
    )
    var peerTimeout = TimeSpan(nanoseconds: 5_000_000_000)

    @Option(help: ArgumentHelp("The least that is logged: debug, info, notice, warning or error.", valueName: "level"))
    var logLevel = Logger.Level.notice

    func validate() throws {
        guard case .tcp = listen else {
            throw ValidationError("a snapshot is served by TCP only, not at \(listen); give HOST:PORT")
        }
        guard listen.isLocal || insecure else {
            throw ValidationError(
                "\(listen) can be reached from other hosts, and whoever reaches it can read the snapshot; use 127.0.0.1, "
                    + "or say --insecure"
            )
        }
    }

    func run() async throws {
        let logger = Logger(label: "pageferry") { [logLevel] _ in LineLog(command: "serve", logLevel: logLevel) }
        let file = try MappedFile(snapshot)
        let server = try SnapshotServer(file, at: listen, peerTimeout: peerTimeout.duration, logger: logger)
        let signals = [SIGTERM, SIGINT].map { number in
            // The source sees it all the same.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { server.end() }
            source.resume()
            return source
        }
        if !server.address.isLocal {
            logger.warning("\(server.address) gives \(snapshot) to whoever reaches it, unauthenticated")
        }
        // Not by print, which keeps lines back when nobody sees them on a terminal.
        FileHandle.standardOutput.write(Data("ready \(server.address)\n".utf8))
        try await server.run()
        withExtendedLifetime(signals) {}
    }
}
