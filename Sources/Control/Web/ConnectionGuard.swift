import HTTPTypes
import LinuxSystem
import NIOCore
import NIOHTTPTypes

/// Ends a connection whose client is too slow, or sends more than a request needs.
///
/// A guard belongs to its channel's event loop.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let connections: WebConnections
    private let limits: WebLimits
    private var channel: (any Channel)?
    /// The end of the time for the rest of a request.
    private var requestLimit: Scheduled<Void>?
    /// The end of the time for the client to read what was sent.
    private var readingLimit: Scheduled<Void>?
    private var requests = 0
    private var bodyBytes = 0
    private var isEventStream = false
    /// When the connection last ended a request, or was made, in nanoseconds of `MonotonicClock`.
    private(set) var idleSince = MonotonicClock.now()

    init(_ connections: WebConnections, _ limits: WebLimits) {
        self.connections = connections
        self.limits = limits
    }

    /// Whether a request is not answered yet.
    var isBusy: Bool { requests > 0 }

    /// Closes the connection.
    func close() { channel?.close(promise: nil) }

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        connections.add(self)
        // A client that connects has a request to send.
        requestLimit = end(context, after: TimeAmount(limits.patience))
    }

    func handlerRemoved(context: ChannelHandlerContext) { leave() }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    private func leave() {
        requestLimit?.cancel()
        readingLimit?.cancel()
        connections.remove(self)
        channel = nil
    }

    private func end(_ context: ChannelHandlerContext, after time: TimeAmount) -> Scheduled<Void> {
        context.eventLoop.scheduleTask(in: time) { [channel = context.channel] in channel.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            requestLimit?.cancel()
            requests += 1
            bodyBytes = 0
            isEventStream = head.path?.hasPrefix(WebServer.eventsPath) ?? false
            requestLimit = end(context, after: TimeAmount(limits.patience))
        case .body(let bytes):
            bodyBytes += bytes.readableBytes
            // A client that still sends much after a refusal does not read it.
            guard bodyBytes <= 16 * limits.bodyBytes else { return context.close(promise: nil) }
        case .end:
            requestLimit?.cancel()
            requestLimit = nil
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) {
            requests -= 1
            idleSince = MonotonicClock.now()
        }
        context.write(data, promise: promise)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        readingLimit?.cancel()
        readingLimit = context.channel.isWritable ? nil : end(context, after: TimeAmount(limits.patience))
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // A browser that leaves a live page ends its connection; other clients may end only their half of it.
        if isEventStream, case .inputClosed? = event as? ChannelEvent { return context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }
}

@available(*, unavailable)
extension ConnectionGuard: Sendable {}
