package import Exposition
import HTTPTypes
import HummingbirdCore
package import LinuxSystem
package import Logging
import NIOCore
import NIOHTTPTypes
import NIOPosix
import Synchronization
package import Telemetry

package import enum LinuxSystem.SocketAddress

/// Answers a browser's live page, Prometheus and probes over HTTP.
///
/// All connections are read and written by one thread, which is none of those that move pages. The owner of a server
/// that listens must call ``end()`` in the end.
package final class WebServer: Sendable {
    /// The lines of the log that the live page shows.
    package struct Log: Sendable {
        /// The latest lines, the oldest first.
        package var events: [LiveState.Event] = []
        /// The number of lines that were logged so far.
        package var count = 0
        /// The number of lines that were only counted.
        package var dropped = 0

        /// Makes a log without lines.
        package init() {}
    }

    /// The settings of a server.
    package struct Settings: Sendable {
        /// The release that runs.
        package var release = ""
        /// The version of the page protocol.
        package var pageProtocol = 0
        /// The name of the host, which the live page shows.
        package var host = ""
        /// The secret of clients that act; nil if no client may act.
        package var token: WebToken?
        /// The names of this host that clients may use, beside its addresses and the name at which the server listens.
        package var names: [String] = []
        /// The bounds of what clients can cost.
        package var limits = WebLimits()
        /// The log so far.
        package var log: @Sendable () -> Log = { Log() }

        /// Makes the settings of a server on which nobody may act.
        package init() {}
    }

    static let eventsPath = "/api/events"

    let observed: any Observed
    let settings: Settings
    let logger: Logger
    let sampler: Sampler
    let streams: EventStreams
    private let loop: any EventLoop
    private let connections: WebConnections
    private let listener = Mutex<(channel: any Channel, file: SocketFile?)?>(nil)

    /// Makes a server that does not listen yet.
    ///
    /// - Parameters:
    ///   - observed: the process that clients look at.
    ///   - settings: the settings.
    ///   - logger: receives messages about the server, never about each request.
    package init(_ observed: any Observed, settings: Settings, logger: Logger) {
        self.observed = observed
        self.settings = settings
        self.logger = logger
        loop = WebLoop.shared
        connections = WebConnections(limit: settings.limits.connections, on: loop)
        sampler = Sampler(observed, settings: settings, connections: connections)
        streams = EventStreams(sampler, settings.limits, connections, on: loop)
    }

    /// Accepts connections at an address.
    ///
    /// A Unix socket has mode 0600 from its first moment. A TCP port is open to everyone who can reach it.
    ///
    /// - Returns: the address; for port 0, with the port that the kernel chose.
    /// - Throws: `SystemError` if the server cannot listen there.
    package func listen(at address: SocketAddress) async throws -> SocketAddress {
        let socket = try Listener(at: address)
        let (bound, file) = (socket.address, socket.file)
        let responder = Responder(server: self, hosts: HostCheck(address, names: settings.names))
        let (connections, limits, logger) = (connections, settings.limits, logger)
        let http = HTTP1Channel(
            responder: { request, writer, channel in try await responder.answer(request, writer, channel) },
            configuration: HTTP1Channel.Configuration(
                additionalChannelHandlers: [ConnectionGuard(connections, limits)],
                idleTimeout: TimeAmount(limits.idleTime),
                httpDecoderConfiguration: HTTP1Channel.Configuration.DecoderConfiguration(
                    maxHeaderFieldSize: limits.headBytes,
                    maxHeaderListSize: limits.headBytes,
                    maxHeaderFieldCount: limits.headers
                )
            )
        )
        let bootstrap = ServerBootstrap(group: loop)
            // A client that closes its sending half first still gets its answer.
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            // A client that does not read holds little memory of the kernel.
            .childChannelOption(.socketOption(.so_sndbuf), value: 256 * 1024)
            .childChannelInitializer { channel in
                WebServer.accept(channel, connections) {
                    http.setup(channel: channel, logger: logger).map { connection in
                        _ = Task { await http.handle(value: connection, logger: logger) }
                    }
                }
            }
        do {
            let channel = try await bootstrap.withBoundSocket(socket.relinquish()).get()
            listener.withLock { $0 = (channel, file) }
        } catch {
            file?.remove()
            throw error
        }
        return bound
    }

    /// Sets a connection up, or refuses it if there are too many.
    private static func accept(
        _ channel: any Channel,
        _ connections: WebConnections,
        _ setUp: () -> EventLoopFuture<Void>
    ) -> EventLoopFuture<Void> {
        do {
            try channel.closeOnExec()
            if connections.makeRoom() { return setUp() }
            try channel.pipeline.syncOperations.addHandler(ConnectionRefusal())
            return channel.eventLoop.makeSucceededVoidFuture()
        } catch {
            return channel.eventLoop.makeFailedFuture(error)
        }
    }

    /// Stops listening, and closes all connections at once, event streams too.
    package func end() async {
        let listening = listener.withLock { $0.take() }
        listening?.file?.remove()
        await streams.end()
        listening?.channel.close(promise: nil)
        // Fails only if the loop has ended, with which all connections have.
        try? await loop.submit { self.connections.closeAll() }.get()
    }
}

/// The one thread on which all HTTP connections of this process are read and written.
///
/// The thread lives as long as the process, and sleeps in the kernel while no connection has anything to read or write.
private enum WebLoop {
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// The thread's loop.
    static var shared: any EventLoop { group.any() }
}
