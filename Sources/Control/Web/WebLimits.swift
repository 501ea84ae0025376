/// Bounds of what one client, or all clients together, can cost.
package struct WebLimits: Sendable, Hashable {
    /// The most connections at a time; a further one takes the place of one that asks for nothing, or is refused.
    package var connections = 256
    /// The most live pages at a time; a further one is refused.
    package var eventStreams = 64
    /// The longest line or header of a request, and the most bytes of all of them.
    package var headBytes = 16 * 1024
    /// The most headers of a request.
    package var headers = 100
    /// The most bytes of a request's body that are read.
    package var bodyBytes = 4 * 1024
    /// How long a client may take for the head of its first request, for a request's body, and for reading an answer.
    package var patience = Duration.seconds(10)
    /// How long a connection may ask for nothing.
    package var idleTime = Duration.seconds(60)
    /// The pause between two ticks of the event streams.
    package var tick = Duration.milliseconds(500)
    /// The longest silence of an event stream; a tick that says only the time ends it.
    package var keepAlive = Duration.seconds(5)

    /// The usual bounds.
    package init() {}
}
