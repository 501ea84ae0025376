internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import SystemPackage

internal import func LinuxSystem.closeOnExec

/// One HTTP request over a Unix socket, and the answer.
enum HTTPExchange {
    struct Answer: Sendable {
        let status: Int
        let reason: String
        let body: [UInt8]
    }

    /// The reason for which no whole answer was received.
    struct Failure: Error {
        let reason: String
        /// Whether the request may have reached Firecracker.
        var wasSent = true
    }

    /// The thread that reads the answers to all requests.
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// Sends a request on a new connection, and blocks until the whole answer has arrived.
    ///
    /// - Parameter timeout: bounds the connection and the answer together.
    static func run(
        _ method: HTTPMethod,
        _ path: String,
        _ body: [UInt8],
        at socketPath: String,
        within timeout: Duration
    ) throws(Failure) -> Answer {
        let loop = group.next()
        let answer = loop.makePromise(of: Answer.self)
        let timer = loop.scheduleTask(in: TimeAmount(timeout)) {
            answer.fail(Failure(reason: "no answer within \(timeout.text); check that Firecracker is not stopped"))
        }
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: path)
        head.headers = ["Host": "localhost", "Accept": "application/json"]
        if !body.isEmpty {
            head.headers.add(name: "Content-Type", value: "application/json")
            head.headers.add(name: "Content-Length", value: String(body.count))
        }
        let request = head
        let connecting = ClientBootstrap(group: loop)
            .connectTimeout(TimeAmount(timeout))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    // NIO creates sockets without SOCK_CLOEXEC.
                    try pipeline.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
                        try closeOnExec($0)
                    }
                    try pipeline.addHTTPClientHandlers()
                    try pipeline.addHandler(ExchangeHandler(request, ByteBuffer(bytes: body), answer))
                }
            }
            .connect(unixDomainSocketPath: socketPath)
        connecting.whenFailure { answer.fail(Failure(reason: reason(of: $0), wasSent: false)) }
        defer {
            timer.cancel()
            connecting.whenSuccess { $0.close(promise: nil) }
        }
        do {
            return try answer.futureResult.wait()
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(reason: reason(of: error))
        }
    }

    /// The text for an error of NIO or its HTTP parser.
    static func reason(of error: any Error) -> String {
        switch error {
        case let error as IOError:
            let word = Errno(rawValue: error.errnoCode).description
            return error.errnoCode == Errno.noSuchFileOrDirectory.rawValue
                || error.errnoCode == Errno.connectionRefused.rawValue
                ? "\(word); check that Firecracker runs there" : word
        case NIOCore.SocketAddressError.unixDomainSocketPathTooLong:
            return "a socket's path has 1 to 107 bytes"
        case HTTPParserError.invalidEOFState:
            return "the connection was closed in the middle of the answer"
        case is HTTPParserError:
            return "the answer is not HTTP: \(error)"
        default:
            return String(describing: error)
        }
    }
}

/// Sends a request and collects the answer, on the channel's event loop.
private final class ExchangeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    /// The longest accepted body, in bytes; the largest answer, a configuration, has some kilobytes.
    private static let maxBytes = 1 << 20

    private let request: HTTPRequestHead
    private let body: ByteBuffer
    private let answer: EventLoopPromise<HTTPExchange.Answer>
    private var head: HTTPResponseHead?
    private var received = ByteBuffer()

    init(_ request: HTTPRequestHead, _ body: ByteBuffer, _ answer: EventLoopPromise<HTTPExchange.Answer>) {
        self.request = request
        self.body = body
        self.answer = answer
    }

    func channelActive(context: ChannelHandlerContext) {
        context.write(wrapOutboundOut(.head(request)), promise: nil)
        if body.readableBytes > 0 { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body(var piece):
            received.writeBuffer(&piece)
            if received.readableBytes > ExchangeHandler.maxBytes {
                answer.fail(HTTPExchange.Failure(reason: "the answer exceeds \(ExchangeHandler.maxBytes) bytes"))
                context.close(promise: nil)
            }
        case .end:
            guard let head else { return }
            answer.succeed(
                HTTPExchange.Answer(
                    status: Int(head.status.code),
                    reason: head.status.reasonPhrase,
                    body: Array(received.readableBytesView)
                )
            )
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(HTTPExchange.Failure(reason: HTTPExchange.reason(of: error)))
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        answer.fail(HTTPExchange.Failure(reason: "the connection was closed without an answer"))
    }
}
