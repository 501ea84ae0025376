package import LinuxSystem
internal import NIOCore
package import NIOHTTP1
internal import NIOPosix
internal import SystemPackage

/// One HTTP request on a connection of its own, and the answer.
package enum HTTPExchange {
    /// A whole answer.
    package struct Answer: Sendable {
        package let status: Int
        package let reason: String
        package let body: [UInt8]
    }

    /// The reason for which no whole answer was received.
    package struct Failure: Error, CustomStringConvertible {
        package let reason: String
        /// Whether the request may have reached the server.
        package var wasSent = true

        package var description: String { reason }
    }

    /// The thread that reads the answers to all requests.
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// A server, and the program that should be there.
    package struct Server: Sendable {
        let address: LinuxSystem.SocketAddress
        let program: String

        /// Names a server.
        ///
        /// - Parameters:
        ///   - address: where the server listens.
        ///   - program: the program that should listen there, for the texts of failures.
        package init(_ program: String, at address: LinuxSystem.SocketAddress) {
            (self.program, self.address) = (program, address)
        }

        /// What a request names as its host: a Unix socket has no name.
        var host: String {
            switch address {
            case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            case .unix: "localhost"
            }
        }
    }

    /// Sends a request on a new connection, and blocks until the whole answer has arrived.
    ///
    /// - Parameter timeout: bounds the connection and the answer together.
    package static func run(
        _ method: HTTPMethod,
        _ path: String,
        _ body: [UInt8],
        at server: Server,
        within timeout: Duration
    ) throws(Failure) -> Answer {
        let (answer, end) = begin(method, path, body, at: server, within: timeout)
        defer { end() }
        do {
            return try answer.wait()
        } catch {
            throw failure(error, of: server)
        }
    }

    /// Sends a request for a page on a new connection, and returns the whole answer.
    ///
    /// - Parameter timeout: bounds the connection and the answer together.
    package static func get(_ path: String, at server: Server, within timeout: Duration) async throws(Failure) -> Answer
    {
        let (answer, end) = begin(.GET, path, [], at: server, within: timeout)
        defer { end() }
        do {
            return try await answer.get()
        } catch {
            throw failure(error, of: server)
        }
    }

    /// Begins an exchange; the returned function must be called at its end.
    private static func begin(
        _ method: HTTPMethod,
        _ path: String,
        _ body: [UInt8],
        at server: Server,
        within timeout: Duration
    ) -> (answer: EventLoopFuture<Answer>, end: @Sendable () -> Void) {
        let loop = group.next()
        let answer = loop.makePromise(of: Answer.self)
        let timer = loop.scheduleTask(in: TimeAmount(timeout)) {
            let advice = "check that \(server.program) is not stopped"
            answer.fail(Failure(reason: "no answer within \(timeout.text); \(advice)"))
        }
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: path)
        head.headers = ["Host": server.host, "Accept": "application/json"]
        if !body.isEmpty {
            head.headers.add(name: "Content-Type", value: "application/json")
            head.headers.add(name: "Content-Length", value: String(body.count))
        }
        let request = head
        let bootstrap = ClientBootstrap(group: loop)
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
        let connecting =
            switch server.address {
            case .tcp(let host, let port): bootstrap.connect(host: host, port: Int(port))
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        connecting.whenFailure {
            var lost = failure($0, of: server)
            lost.wasSent = false
            answer.fail(lost)
        }
        return (
            answer.futureResult,
            {
                timer.cancel()
                connecting.whenSuccess { $0.close(promise: nil) }
            }
        )
    }

    private static func failure(_ error: any Error, of server: Server) -> Failure {
        if let failure = error as? Failure { return failure }
        if let error = error as? NIOConnectionError, let first = error.connectionErrors.first {
            return failure(first.error, of: server)
        }
        let reason = reason(of: error)
        guard let error = error as? IOError else { return Failure(reason: reason) }
        let isAbsent = [Errno.noSuchFileOrDirectory, .connectionRefused].map(\.rawValue).contains(error.errnoCode)
        return Failure(reason: isAbsent ? "\(reason); check that \(server.program) runs there" : reason)
    }

    /// The text for an error of NIO or its HTTP parser.
    static func reason(of error: any Error) -> String {
        switch error {
        case let error as IOError:
            return Errno(rawValue: error.errnoCode).description
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
