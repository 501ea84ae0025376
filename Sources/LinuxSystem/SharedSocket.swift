/// A connection that several owners share; closed when the last lets go.
public final class SharedSocket: Sendable {
    /// The connection.
    public let stream: StreamSocket

    /// Shares a connection.
    public init(_ stream: consuming StreamSocket) {
        self.stream = stream
    }
}
