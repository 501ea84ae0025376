public import LinuxSystem
public import Logging
internal import NIOCore
internal import NIOPosix

public import enum LinuxSystem.SocketAddress

/// A QMP server: takes connections, negotiates, hands commands to a handler, and spreads events.
///
/// Whoever makes one and lets it listen calls ``shutdown()`` in the end.
public final class QMPServer: Sendable {
    /// What one client, or all of them together, can cost.
    public struct Limits: Sendable, Hashable {
        /// Connections at a time.
        ///
        /// Further ones get an error object and are closed, unless one that has not negotiated in time gives way.
        public var connections = 128
        /// How long a client may take to negotiate where others want its place.
        public var negotiation = Duration.seconds(5)
        /// The longest text that a client may send.
        ///
        /// A longer one ends its connection.
        public var messageBytes = 64 * 1024
        /// What may be waiting for a client that does not read.
        ///
        /// More ends its connection.
        public var unsentBytes = 1024 * 1024
        /// Commands of one connection that run or wait.
        ///
        /// No more input is read from it until one is done.
        public var commandsPerConnection = 64

        /// The bounds that suit an agent.
        public init() {}
    }

    /// What belongs to the event loop.
    private struct State {
        var listeners: [Listening] = []
        var sessions: [ObjectIdentifier: ServerSession] = [:]
        var commands: [UInt64: Task<Void, Never>] = [:]
        var lastCommand: UInt64 = 0
        var closing: EventLoopPromise<Void>?
    }

    private struct Listening {
        let channel: any Channel
        let file: SocketFile?
        let address: SocketAddress
    }

    let limits: Limits
    let logger: Logger
    private let version: QMPVersion
    private let handler: any QMPHandler
    private let commandNames: [String]
    private let patientCommands: Set<String>
    private let loop: any EventLoop
    private let state: NIOLoopBoundBox<State>

    /// A server that does not listen yet.
    ///
    /// - Parameters:
    ///   - version: what clients are told.
    ///   - handler: who carries out the commands.
    ///   - limits: what clients can cost.
    ///   - logger: told of connections, never of each command. Silent if left out.
    public init(
        version: QMPVersion = QMPVersion(),
        handler: any QMPHandler,
        limits: Limits = Limits(),
        logger: Logger = Logger(label: "qmp") { _ in SwiftLogNoOpLogHandler() }
    ) {
        self.version = version
        self.handler = handler
        self.limits = limits
        self.logger = logger
        commandNames = handler.commandNames
        patientCommands = handler.patientCommands
        loop = ControlLoop.shared
        state = .makeBoxSendingValue(State(), eventLoop: loop)
    }

    /// Takes connections at this address.
    ///
    /// May be called for several addresses.
    ///
    /// A Unix socket has mode 0600 from its first moment, and replaces a socket file that nobody listens on. A TCP port
    /// is open to everyone who can reach it.
    ///
    /// - Returns: the address, with the port that was given if port 0 was asked for.
    /// - Throws: `SystemError` if the address cannot be had; ``QMPConnectionError`` if the server has been shut down.
    @discardableResult
    public func listen(on address: SocketAddress) async throws -> SocketAddress {
        let listener = try Listener(at: address)
        let (bound, file) = (listener.address, listener.file)
        let bootstrap = ServerBootstrap(group: loop)
            .childChannelOption(.autoRead, value: false)
            // A client may close its sending half first and still gets its answers.
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.accept(channel) }
            }
        do {
            let channel = try await bootstrap.withBoundSocket(listener.relinquish()).get()
            let listening = Listening(channel: channel, file: file, address: bound)
            try await loop.submit { try self.add(listening) }.get()
            return bound
        } catch let error as QMPConnectionError {
            throw error
        } catch {
            file?.remove()
            throw QMPConnectionError(.listen, bound, reason: QMPConnectionError.reason(of: error))
        }
    }

    /// Tells all clients that have negotiated, with the present time as timestamp.
    ///
    /// Returns at once. What the caller broadcasts, and what its commands return afterwards, reaches each client in
    /// this order.
    public func broadcast(event name: String, data: [String: JSONValue] = [:]) {
        let event = QMPEvent(name: name, data: data, timestamp: .now)
        loop.execute {
            let recipients = self.state.value.sessions.values.filter(\.isNegotiated)
            guard !recipients.isEmpty else { return }
            let message = ByteBuffer(message: event.json)
            for session in recipients { session.send(message) }
        }
    }

    /// Ends the server: takes no more connections, removes its socket files, cancels the commands that run and waits
    /// for their return, closes all connections.
    public func shutdown() async {
        // Cannot fail: the promise behind it is only ever succeeded.
        try? await loop.flatSubmit { self.beginShutdown() }.get()
    }
}

// What runs on the event loop.
extension QMPServer {
    private func add(_ listener: Listening) throws {
        guard state.value.closing == nil else {
            listener.file?.remove()
            listener.channel.close(promise: nil)
            throw QMPConnectionError(.listen, listener.address, reason: "the server has been shut down")
        }
        state.value.listeners.append(listener)
        logger.info("QMP server listens", metadata: ["address": "\(listener.address)"])
    }

    private func accept(_ channel: any Channel) throws {
        try channel.closeOnExec()
        guard state.value.closing == nil else {
            return try channel.pipeline.syncOperations.addHandler(ConnectionRefusal(reason: "the server shuts down"))
        }
        guard state.value.sessions.count < limits.connections || makeRoom() else {
            let reason = "too many connections, at most \(limits.connections) at a time"
            logger.notice("QMP connection refused", metadata: ["reason": "\(reason)"])
            return try channel.pipeline.syncOperations.addHandler(ConnectionRefusal(reason: reason))
        }
        let session = ServerSession(
            server: self,
            machine: SessionStateMachine(
                version: version,
                commandNames: commandNames,
                patientCommands: patientCommands,
                maximumCommands: limits.commandsPerConnection
            )
        )
        try channel.pipeline.syncOperations.addHandler(session)
        state.value.sessions[ObjectIdentifier(session)] = session
    }

    /// Ends the connection that has been there longest without having negotiated in time.
    ///
    /// - Returns: whether there was one.
    private func makeRoom() -> Bool {
        let late = state.value.sessions.values.filter { !$0.isNegotiated && $0.begin + limits.negotiation <= .now }
        guard let oldest = late.min(by: { $0.begin < $1.begin }), let channel = oldest.channel else { return false }
        logger.notice("QMP client dropped: it has not negotiated, and another has come")
        forget(oldest)
        channel.close(promise: nil)
        return true
    }

    /// The connection and all its commands have ended.
    func forget(_ session: ServerSession) {
        state.value.sessions[ObjectIdentifier(session)] = nil
    }

    /// Has the handler carry out the command, then reports to the session.
    func run(_ command: QMPCommand, isBeside: Bool, for session: ServerSession) {
        state.value.lastCommand += 1
        let number = state.value.lastCommand
        let session = NIOLoopBound(session, eventLoop: loop)
        let task = Task {
            let result: Result<JSONValue, QMPError>
            do throws(QMPError) {
                result = .success(try await handler.handle(command))
            } catch {
                result = .failure(error)
            }
            loop.execute {
                session.value.finished(command, isBeside: isBeside, result)
                self.state.value.commands[number] = nil
                self.finishShutdown()
            }
        }
        state.value.commands[number] = task
    }

    private func beginShutdown() -> EventLoopFuture<Void> {
        if let closing = state.value.closing { return closing.futureResult }
        let closing = loop.makePromise(of: Void.self)
        state.value.closing = closing
        for listener in state.value.listeners {
            listener.file?.remove()
            listener.channel.close(promise: nil)
        }
        for session in state.value.sessions.values { session.dropWaiting() }
        for task in state.value.commands.values { task.cancel() }
        finishShutdown()
        return closing.futureResult
    }

    /// Closes the connections once no command is left that could still answer.
    private func finishShutdown() {
        guard let closing = state.value.closing, state.value.commands.isEmpty else { return }
        let sessions = state.value.sessions.values.compactMap(\.channel)
        for channel in sessions { channel.close(promise: nil) }
        let channels = sessions + state.value.listeners.map(\.channel)
        EventLoopFuture.andAllComplete(channels.map(\.closeFuture), on: loop).cascade(to: closing)
    }
}
