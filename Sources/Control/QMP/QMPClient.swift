internal import NIOCore
internal import NIOPosix
internal import Synchronization
internal import SystemPackage

package import enum LinuxSystem.SocketAddress
package import class LinuxSystem.SocketPlace
package import struct LinuxSystem.SystemError

/// A QMP client: one connection to a server, negotiated and ready for commands.
package final class QMPClient: Sendable {
    /// The most events that are kept until the consumer takes them; beyond that the oldest are lost.
    package static let maximumUntakenEvents = 1024

    /// The address of the server.
    package let address: SocketAddress
    /// The version that the server announced.
    package let serverVersion: QMPVersion
    /// The capabilities that the server offered, for example `oob`.
    package let serverCapabilities: [String]
    /// The events that the server sends after the negotiation, for one consumer.
    ///
    /// The stream ends with the connection.
    package let events: AsyncStream<QMPEvent>

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
    ///   - timeout: the longest time for connecting and negotiating.
    ///   - outOfBand: whether to ask for the capability `oob`.
    /// - Throws: ``QMPConnectionError``, or `CancellationError` if the task is cancelled.
    package static func connect(
        to address: SocketAddress,
        within timeout: Duration = .seconds(5),
        outOfBand: Bool = false
    ) async throws -> QMPClient {
        let loop = ControlLoop.shared
        let ready = loop.makePromise(of: ClientSession.Ready.self)
        let (events, continuation) = AsyncStream.makeStream(
            of: QMPEvent.self,
            bufferingPolicy: .bufferingNewest(maximumUntakenEvents)
        )
        let timer = loop.scheduleTask(in: TimeAmount(timeout)) {
            ready.fail(
                QMPConnectionError(
                    .connect,
                    address,
                    reason: "no QMP greeting or answer in time",
                    advice: "check that an agent is controlled there, by --qmp, and that its process is not stopped"
                )
            )
        }
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(TimeAmount(timeout))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.closeOnExec()
                    let session = ClientSession(address, outOfBand: outOfBand, ready: ready, events: continuation)
                    try channel.pipeline.syncOperations.addHandler(session)
                }
            }
        let connecting = connect(bootstrap, to: address)
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

    private static func connect(
        _ bootstrap: ClientBootstrap,
        to address: SocketAddress
    ) -> EventLoopFuture<any Channel> {
        switch address {
        case .tcp(let host, let port): return bootstrap.connect(host: host, port: Int(port))
        case .unix(let path):
            do throws(SystemError) {
                let place = try SocketPlace(path)
                let connecting = bootstrap.connect(unixDomainSocketPath: place.path)
                // The short path leads to the socket for as long as the place is open.
                connecting.whenComplete { _ in withExtendedLifetime(place) {} }
                return connecting
            } catch {
                return ControlLoop.shared.makeFailedFuture(
                    IOError(errnoCode: error.errno.rawValue, reason: error.action)
                )
            }
        }
    }

    /// Sends a command to the server and waits for the result.
    ///
    /// Several commands may be under way at a time.
    ///
    /// - Parameters:
    ///   - name: the command's name, for example `query-status`.
    ///   - arguments: the command's arguments.
    ///   - outOfBand: whether the command overtakes earlier ones; the connection must have negotiated `oob`.
    /// - Returns: what the server returned.
    /// - Throws: ``QMPError`` as the server sent it; ``QMPConnectionError`` if the connection ended before the answer;
    ///   `CancellationError` if the task is cancelled, in which case the server still carries out the command.
    package func execute(
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
    /// Commands under way fail, and ``events`` ends.
    package func close() async {
        channel.eventLoop.execute { self.session.value.close() }
        // Cannot fail: a channel's close future always succeeds.
        try? await channel.closeFuture.get()
    }
}
