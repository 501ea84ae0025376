internal import NIOCore

/// Sends a client the reason why it is not served, and closes the connection.
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
