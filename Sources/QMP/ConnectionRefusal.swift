internal import NIOCore

/// Tells a client why it is not served, and closes.
final class ConnectionRefusal: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let reason: String

    init(reason: String) {
        self.reason = reason
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(
            wrapOutboundOut(ByteBuffer(message: ["error": QMPError.generic(reason).json])),
            promise: nil
        )
        context.close(promise: nil)
    }
}
