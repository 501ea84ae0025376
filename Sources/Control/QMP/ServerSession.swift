internal import LinuxSystem
internal import Logging
internal import NIOCore

/// One client's connection: moves bytes between the socket and the state machine.
///
/// All methods run on the event loop.
final class ServerSession: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let server: QMPServer
    /// The server's listening channel that accepted the client.
    let listener: ObjectIdentifier?
    private var machine: SessionStateMachine
    private var splitter: MessageSplitter
    private var unread: ArraySlice<UInt8> = []
    private var inputHasEnded = false
    private var takesInput = true
    private var context: ChannelHandlerContext?
    /// When the client connected, in nanoseconds of `MonotonicClock`.
    let begin = MonotonicClock.now()

    init(server: QMPServer, listener: ObjectIdentifier?, machine: SessionStateMachine) {
        self.server = server
        self.listener = listener
        self.machine = machine
        splitter = MessageSplitter(maximumBytes: server.limits.messageBytes)
    }

    /// The client's channel; nil once the connection has ended.
    var channel: (any Channel)? { context?.channel }

    /// Whether the client gets events.
    var isNegotiated: Bool { machine.isNegotiated }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        // Running commands continue, and the session counts as a connection until they return. Otherwise a client that
        // connects, starts a command and disconnects, again and again, could run any number of commands.
        dropWaiting()
        self.context = nil
        if machine.isIdle { server.forget(self) }
    }

    func channelActive(context: ChannelHandlerContext) {
        send(ByteBuffer(message: machine.greeting))
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        unread.append(contentsOf: unwrapInboundIn(data).readableBytesView)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        takeInput()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed = event as? ChannelEvent {
            inputHasEnded = true
            takeInput()
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        server.logger.debug("QMP connection failed", metadata: ["reason": "\(QMPConnectionError.reason(of: error))"])
        context.close(promise: nil)
    }

    /// Writes one message, and closes the connection if the client leaves too much unread.
    func send(_ message: ByteBuffer) {
        guard let context else { return }
        context.writeAndFlush(wrapOutboundOut(message), promise: nil)
        // A channel that has closed has no options, and nothing unsent.
        let unsent = try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)
        if let unsent, unsent > server.limits.unsentBytes {
            server.logger.notice("QMP client dropped: it does not read", metadata: ["unsent_bytes": "\(unsent)"])
            context.close(promise: nil)
        }
    }

    /// Takes the result of a command that the server ran for this session, and answers the client.
    func finished(_ command: QMPCommand, isBeside: Bool, _ result: Result<JSONValue, QMPError>) {
        send(ByteBuffer(message: machine.finished(command, isBeside: isBeside, result)))
        while let action = machine.next() { perform(action) }
        takeInput()
        if context == nil, machine.isIdle { server.forget(self) }
    }

    /// Drops the commands that have not begun, and accepts no more.
    func dropWaiting() {
        machine.dropWaiting()
        takesInput = false
    }

    /// Handles the input that was read while there is room, then reads more or, at the end of the input, closes.
    private func takeInput() {
        while takesInput, machine.hasRoom, let piece = splitter.next(from: &unread) { take(piece) }
        guard takesInput, machine.hasRoom, let context else { return }
        if !inputHasEnded {
            context.read()
        } else if machine.isIdle {
            context.close(promise: nil)
        }
    }

    private func take(_ piece: MessageSplitter.Piece) {
        switch piece {
        case .message(let text):
            do throws(QMPError) {
                perform(machine.received(.success(try JSONReader.read(text))))
            } catch {
                perform(machine.received(.failure(error)))
            }
        case .malformed(let reason):
            perform(machine.received(.failure(.generic("JSON parse error, \(reason)"))))
        case .tooLong:
            let reason = "JSON parse error, message longer than \(server.limits.messageBytes) bytes"
            server.logger.notice("QMP client dropped: message too long")
            send(ByteBuffer(message: ["error": QMPError.generic(reason).json]))
            dropWaiting()
            context?.close(promise: nil)
        }
    }

    private func perform(_ action: SessionStateMachine.Action) {
        switch action {
        case .answer(let message): send(ByteBuffer(message: message))
        case .run(let command, let isBeside): server.run(command, isBeside: isBeside, for: self)
        case .wait: break
        }
    }
}
