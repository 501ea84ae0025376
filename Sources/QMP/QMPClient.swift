internal import NIOCore
internal import NIOPosix
internal import Synchronization

public import enum LinuxSystem.SocketAddress

/// A QMP client: one connection to a server, negotiated and ready for commands.
public final class QMPClient: Sendable {
    /// Events that nobody has taken are kept up to this number; then the oldest are lost.
    public static let maximumUntakenEvents = 1024

    /// Whom it is connected to.
    public let address: SocketAddress
    /// What the server says it is.
    public let serverVersion: QMPVersion
    /// What the server offered, for example `oob`.
    public let serverCapabilities: [String]
    /// What the server tells unasked, from the negotiation on, for one consumer.
    ///
    /// Ends with the connection.
    public let events: AsyncStream<QMPEvent>

    private let channel: any Channel
    private let session: NIOLoopBound<ClientSession>
    private let lastID = Atomic<Int64>(0)

    private init(address: SocketAddress, ready: ClientSession.Ready, events: AsyncStream<QMPEvent>) {
        self.address = address
        self.events = events
        serverVersion = ready.version
        serverCapabilities = ready.capabilities
        channel = ready.channel
        session = ready.session
    }

    deinit {
        channel.close(promise: nil)
    }

    /// Connects, checks the greeting and negotiates.
    ///
    /// - Parameters:
    ///   - address: where the server listens.
    ///   - deadline: until when all of this must be done.
    ///   - outOfBand: whether to ask for the capability `oob`.
    /// - Throws: ``QMPConnectionError``, or `CancellationError`.
    public static func connect(
        to address: SocketAddress,
        deadline: ContinuousClock.Instant = .now + .seconds(5),
        outOfBand: Bool = false
    ) async throws -> QMPClient {
        let loop = ControlLoop.shared
        let remaining = TimeAmount(max(.zero, deadline - .now))
        let ready = loop.makePromise(of: ClientSession.Ready.self)
        let (events, continuation) = AsyncStream.makeStream(
            of: QMPEvent.self,
            bufferingPolicy: .bufferingNewest(maximumUntakenEvents)
        )
        let timer = loop.scheduleTask(in: remaining) {
            ready.fail(QMPConnectionError(.connect, address, reason: "no QMP greeting or answer in time"))
        }
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(remaining)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.closeOnExec()
                    let session = ClientSession(address, outOfBand: outOfBand, ready: ready, events: continuation)
                    try channel.pipeline.syncOperations.addHandler(session)
                }
            }
        let connecting =
            switch address {
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            case .tcp(let host, let port): bootstrap.connect(host: host, port: Int(port))
            }
        connecting.whenFailure { error in
            ready.fail(
                QMPConnectionError(
                    .connect,
                    address,
                    reason: QMPConnectionError.reason(of: error),
                    advice: QMPConnectionError.advice(on: error, at: address)
                )
            )
        }
        do {
            let ready = try await withTaskCancellationHandler {
                try await ready.futureResult.get()
            } onCancel: {
                ready.fail(CancellationError())
            }
            timer.cancel()
            return QMPClient(address: address, ready: ready, events: events)
        } catch {
            timer.cancel()
            continuation.finish()
            connecting.whenSuccess { $0.close(promise: nil) }
            throw error
        }
    }

    /// Has the server carry out a command and waits for its result.
    ///
    /// Several may be under way at a time.
    ///
    /// - Parameters:
    ///   - name: for example `query-status`.
    ///   - arguments: what the command is to know.
    ///   - outOfBand: whether it overtakes earlier commands. The connection must have been made for that.
    /// - Returns: what the server returned.
    /// - Throws: ``QMPError`` as the server sent it; ``QMPConnectionError`` if the connection ended before the answer;
    ///   `CancellationError`, whereupon the server still carries out the command.
    public func execute(
        _ name: String,
        arguments: [String: JSONValue] = [:],
        outOfBand: Bool = false
    ) async throws -> JSONValue {
        try Task.checkCancellation()
        let id = lastID.add(1, ordering: .relaxed).newValue
        let message = QMPCommand(name: name, arguments: arguments, id: .integer(id)).json(outOfBand: outOfBand)
        let answer = channel.eventLoop.makePromise(of: JSONValue.self)
        return try await withTaskCancellationHandler {
            channel.eventLoop.execute { self.session.value.send(message, id: id, answer: answer) }
            return try await answer.futureResult.get()
        } onCancel: {
            answer.fail(CancellationError())
        }
    }

    /// Ends the connection.
    ///
    /// Commands under way fail, ``events`` ends.
    public func close() async {
        channel.eventLoop.execute { self.session.value.close() }
        // Cannot fail: a channel's close future always succeeds.
        try? await channel.closeFuture.get()
    }
}
