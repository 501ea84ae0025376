/// A connection that several owners share, closed when the last of them releases it.
package final class SharedSocket: Sendable {
    /// The connection.
    package let stream: StreamSocket

    /// Takes over a connection to share it.
    package init(_ stream: consuming StreamSocket) {
        self.stream = stream
    }
}
