internal import NIOCore

internal import enum LinuxSystem.SocketAddress

/// A client's side of a connection: negotiates, matches answers to commands, and passes events on.
///
/// All methods run on the event loop.
final class ClientSession: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// A connection that has been negotiated.
    struct Ready: Sendable {
        let channel: any Channel
        let session: NIOLoopBound<ClientSession>
        let version: QMPVersion
        let capabilities: [String]
    }

    private enum Phase {
        /// → negotiating
        case expectingGreeting
        /// → ready
        case negotiating(QMPVersion, capabilities: [String])
        /// Stays until the connection ends.
        case ready
    }

    /// The longest message that the client accepts, in bytes.
    private static let maximumBytes = 16 * 1024 * 1024

    private let address: SocketAddress
    private let outOfBand: Bool
    private let ready: EventLoopPromise<Ready>
    private let events: AsyncStream<QMPEvent>.Continuation
    private var phase = Phase.expectingGreeting
    private var splitter = MessageSplitter(maximumBytes: maximumBytes)
    private var unread: ArraySlice<UInt8> = []
    private var answers: [Int64: EventLoopPromise<JSONValue>] = [:]
    private var context: ChannelHandlerContext?
    private var hasConnected = false
    private var endReason = (operation: QMPConnectionError.Operation.talk, text: "the server closed it")

    init(
        _ address: SocketAddress,
        outOfBand: Bool,
        ready: EventLoopPromise<Ready>,
        events: AsyncStream<QMPEvent>.Continuation
    ) {
        self.address = address
        self.outOfBand = outOfBand
        self.ready = ready
        self.events = events
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        // If no connection was made, `QMPClient.connect` fails the promise with the reason.
        if hasConnected { ready.fail(QMPConnectionError(.connect, address, reason: endReason.text)) }
        let error = failure
        for answer in answers.values { answer.fail(error) }
        answers = [:]
        events.finish()
    }

    func channelActive(context: ChannelHandlerContext) {
        hasConnected = true
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        unread.append(contentsOf: unwrapInboundIn(data).readableBytesView)
        while self.context != nil, let piece = splitter.next(from: &unread) { take(piece) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(because: QMPConnectionError.reason(of: error))
    }

    /// Sends a command whose answer carries this id.
    func send(_ command: JSONValue, id: Int64, answer: EventLoopPromise<JSONValue>) {
        guard let context else {
            return answer.fail(failure)
        }
        answers[id] = answer
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(message: command)), promise: nil)
    }

    /// Closes the connection on behalf of the user.
    func close() {
        end(because: "it was closed here")
    }

    /// The error of commands whose answer will never come.
    private var failure: QMPConnectionError {
        QMPConnectionError(endReason.operation, address, reason: endReason.text)
    }

    private func end(_ operation: QMPConnectionError.Operation = .talk, because reason: String) {
        endReason = (operation, reason)
        context?.close(promise: nil)
    }

    private func take(_ piece: MessageSplitter.Piece) {
        switch piece {
        case .message(let text):
            do throws(QMPError) {
                take(try JSONReader.read(text))
            } catch {
                end(.understand, because: "the server does not speak QMP: \(error)")
            }
        case .malformed(let reason):
            end(.understand, because: "the server does not speak QMP: JSON parse error, \(reason)")
        case .tooLong:
            end(.understand, because: "the server sent a message longer than \(Self.maximumBytes) bytes")
        }
    }

    private func take(_ message: JSONValue) {
        if let event = QMPEvent(json: message) {
            events.yield(event)
            return
        }
        switch phase {
        case .expectingGreeting: greet(message)
        case .negotiating(let version, let capabilities):
            guard message["return"] != nil else { return refuse(message) }
            guard let context else { return }
            phase = .ready
            let session = NIOLoopBound(self, eventLoop: context.eventLoop)
            ready.succeed(
                Ready(channel: context.channel, session: session, version: version, capabilities: capabilities)
            )
        case .ready:
            // An error without an id is about a message that the server could not read at all.
            guard let id = message["id"]?.integer else { return refuse(message) }
            guard let answer = answers.removeValue(forKey: id) else { return }
            if let error = message["error"] {
                answer.fail(QMPError(json: error))
            } else {
                answer.succeed(message["return"] ?? [:])
            }
        }
    }

    private func greet(_ message: JSONValue) {
        guard let greeting = message["QMP"], let version = greeting["version"].flatMap(QMPVersion.init(json:)) else {
            return refuse(message)
        }
        phase = .negotiating(version, capabilities: (greeting["capabilities"]?.array ?? []).compactMap(\.string))
        let enable: [String: JSONValue] =
            outOfBand ? ["enable": [.string(SessionStateMachine.outOfBandCapability)]] : [:]
        let command = QMPCommand(name: "qmp_capabilities", arguments: enable, id: 0)
        context?.writeAndFlush(
            wrapOutboundOut(ByteBuffer(message: command.json(outOfBand: false))),
            promise: nil
        )
    }

    /// Ends the connection because of a message that is not expected in this phase.
    private func refuse(_ message: JSONValue) {
        if let error = message["error"] {
            end(.understand, because: "the server answered: \(QMPError(json: error))")
        } else {
            end(.understand, because: "the server does not speak QMP: it sent \(message.description.prefix(80))")
        }
    }
}
