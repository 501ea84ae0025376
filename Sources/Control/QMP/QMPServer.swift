package import LinuxSystem
package import Logging
internal import NIOCore
internal import NIOPosix

package import enum LinuxSystem.SocketAddress

/// A QMP server: accepts connections, negotiates, hands commands to a handler, and broadcasts events.
///
/// The owner of a server that listens must call ``shutdown()`` in the end.
package final class QMPServer: Sendable {
    /// Bounds of what one client, or all clients together, can cost.
    package struct Limits: Sendable, Hashable {
        /// The most connections at a time at each address on which the server listens.
        ///
        /// Each address has a bound of its own, so that clients of one address cannot keep others out of another. A
        /// further connection gets an error object and is closed, unless a client that did not negotiate in time is
        /// dropped for it.
        package var connections = 128
        /// How long a client may take to negotiate when another client wants its place.
        package var negotiation = Duration.seconds(5)
        /// The longest text that a client may send, in bytes.
        ///
        /// A longer text ends the client's connection.
        package var messageBytes = 64 * 1024
        /// The most bytes that may wait for a client that does not read.
        ///
        /// If more wait, the server ends the client's connection.
        package var unsentBytes = 1024 * 1024
        /// The most commands of one connection that run or wait.
        ///
        /// At this number the server reads no more input from the connection until a command is done.
        package var commandsPerConnection = 64

        /// The bounds that suit an agent.
        package init() {}
    }

    /// The state that only the event loop touches.
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
    private let commands: [QMPCommandDescription]
    private let events: [QMPEventDescription]
    private let loop: any EventLoop
    private let state: NIOLoopBoundBox<State>

    /// A server that does not listen yet.
    ///
    /// - Parameters:
    ///   - version: the version that the server announces.
    ///   - handler: carries out the commands.
    ///   - limits: the bounds of what clients can cost.
    ///   - logger: receives messages about connections, never about each command; by default nothing is logged.
    package init(
        version: QMPVersion = QMPVersion(),
        handler: any QMPHandler,
        limits: Limits = Limits(),
        logger: Logger = Logger(label: "qmp") { _ in SwiftLogNoOpLogHandler() }
    ) {
        self.version = version
        self.handler = handler
        self.limits = limits
        self.logger = logger
        commands = handler.commands
        events = handler.events
        loop = ControlLoop.shared
        state = .makeBoxSendingValue(State(), eventLoop: loop)
    }

    /// Accepts connections at this address.
    ///
    /// A server may listen on several addresses. A Unix socket has mode 0600 from its first moment, and replaces a
    /// socket file on which no process listens. A TCP port is open to everyone who can reach it.
    ///
    /// - Returns: the address; for port 0, with the port that the kernel chose.
    /// - Throws: `SystemError` if the server cannot listen on the address; ``QMPConnectionError`` if the server has
    ///   been shut down.
    @discardableResult
    package func listen(on address: SocketAddress) async throws -> SocketAddress {
        let listener = try Listener(at: address)
        let (bound, file) = (listener.address, listener.file)
        let bootstrap = ServerBootstrap(group: loop)
            .childChannelOption(.autoRead, value: false)
            // A client that closes its sending half first still gets its answers.
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

    /// Sends an event to all clients that have negotiated.
    ///
    /// The method returns at once. Each client receives the events in the order of the calls. If a command returns
    /// after a call, the command's result reaches the client after the event.
    package func broadcast(
        event name: String,
        data: [String: JSONValue] = [:],
        at timestamp: QMPEvent.Timestamp = .now
    ) {
        let event = QMPEvent(name: name, data: data, timestamp: timestamp)
        loop.execute {
            let recipients = self.state.value.sessions.values.filter(\.isNegotiated)
            guard !recipients.isEmpty else { return }
            let message = ByteBuffer(message: event.json)
            for session in recipients { session.send(message) }
        }
    }

    /// Shuts the server down.
    ///
    /// The server stops accepting connections, removes its socket files, cancels the running commands, waits until they
    /// return, and closes all connections.
    package func shutdown() async {
        // Cannot fail: the future's promise is only ever succeeded.
        try? await loop.flatSubmit { self.beginShutdown() }.get()
    }
}

// The methods that run on the event loop.
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
        let listener = channel.parent.map { ObjectIdentifier($0) }
        let others = state.value.sessions.values.filter { $0.listener == listener }
        guard others.count < limits.connections || makeRoom(among: others) else {
            let reason = "too many connections, at most \(limits.connections) at a time"
            logger.notice("QMP connection refused", metadata: ["reason": "\(reason)"])
            return try channel.pipeline.syncOperations.addHandler(ConnectionRefusal(reason: reason))
        }
        let session = ServerSession(
            server: self,
            listener: listener,
            machine: SessionStateMachine(
                version: version,
                commands: commands,
                events: events,
                maximumCommands: limits.commandsPerConnection
            )
        )
        try channel.pipeline.syncOperations.addHandler(session)
        state.value.sessions[ObjectIdentifier(session)] = session
    }

    /// Closes the oldest of the connections that did not negotiate in time.
    ///
    /// - Returns: whether there was such a connection.
    private func makeRoom(among sessions: [ServerSession]) -> Bool {
        let late = sessions.filter { !$0.isNegotiated && MonotonicClock.time(since: $0.begin) >= limits.negotiation }
        guard let oldest = late.min(by: { $0.begin < $1.begin }), let channel = oldest.channel else { return false }
        logger.notice("QMP client dropped: it did not negotiate in time, and another client needs its place")
        forget(oldest)
        channel.close(promise: nil)
        return true
    }

    /// Removes a session whose connection and commands have all ended.
    func forget(_ session: ServerSession) {
        state.value.sessions[ObjectIdentifier(session)] = nil
    }

    /// Runs a command in the handler, then reports the result to the session.
    func run(_ command: QMPCommand, isBeside: Bool, for session: ServerSession) {
        state.value.lastCommand += 1
        let number = state.value.lastCommand
        let session = NIOLoopBound(session, eventLoop: loop)
        let task = Task {
            let result: Result<JSONValue, QMPError>
            do throws(QMPError) {
                result = .success(try await handler.answer(command))
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

    /// Closes the connections once no running command can still answer.
    private func finishShutdown() {
        guard let closing = state.value.closing, state.value.commands.isEmpty else { return }
        let sessions = state.value.sessions.values.compactMap(\.channel)
        for channel in sessions { channel.close(promise: nil) }
        let channels = sessions + state.value.listeners.map(\.channel)
        EventLoopFuture.andAllComplete(channels.map(\.closeFuture), on: loop).cascade(to: closing)
    }
}
