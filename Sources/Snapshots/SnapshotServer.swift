import Connections
public import LinuxSystem
public import Logging
import PageProtocol
import SourceAgent

/// Serves the memory of a guest out of a file to any number of destinations, until the file changes or it is told to end.
public final class SnapshotServer: Sendable {
    /// What happens, in the order it happened.
    enum Event: Sendable {
        case arrived(LaneAcceptor.Arrival)
        /// What a session has been told, by its number.
        case control(Int, ControlLane.Event)
        case agent(Int, SnapshotAgent.Event)
        /// A session whose lane broke had its time for a last word.
        case gone(Int, reason: String)
        /// A session's connections and threads are gone.
        case ended(Int)
        case endAsked
    }

    private let file: MappedFile
    private let peerTimeout: Duration
    private let logger: Logger
    private let acceptor: LaneAcceptor
    private let stream: AsyncStream<Event>
    private let events: AsyncStream<Event>.Continuation

    /// Listens at an address.
    ///
    /// - Parameter peerTimeout: the longest silence of a destination before it counts as gone.
    public init(
        _ file: MappedFile,
        at address: SocketAddress,
        peerTimeout: Duration = .seconds(5),
        logger: Logger
    ) throws(SystemError) {
        self.file = file
        self.peerTimeout = peerTimeout
        self.logger = logger
        (stream, events) = AsyncStream.makeStream(of: Event.self)
        acceptor = try LaneAcceptor(at: address, logger: logger) { [events] in events.yield(.arrived($0)) }
    }

    /// Where it listens, with the port the kernel chose.
    public var address: SocketAddress { acceptor.address }

    /// Serves; once.
    ///
    /// - Throws: what has happened to the file. Every destination has been told.
    public func run() async throws(FileChanged) {
        var sessions = Sessions(
            file: file,
            peerTimeout: peerTimeout,
            acceptor: acceptor,
            events: events,
            logger: logger
        )
        var change: FileChanged?
        for await event in stream {
            switch event {
            case .arrived(let arrival):
                switch arrival.opening {
                case .hello(let hello): sessions.open(arrival.socket, hello)
                case .join(let join): sessions.join(arrival.socket, join)
                }
            case .control(let number, let event): sessions.hear(event, from: number)
            case .agent(let number, .laneLost(let lane, let reason)): sessions.lose(lane, of: number, reason: reason)
            case .gone(let number, let reason): sessions.end(number, because: reason)
            case .ended(let number): sessions.remove(number)
            case .agent(_, .fileChanged(let found)):
                change = change ?? found
                sessions.endAll(because: found.description)
            case .endAsked: sessions.endAll(because: "the server of \(file.path) was told to end")
            }
            if sessions.haveEnded { break }
        }
        if let change { throw change }
    }

    /// Lets ``run()`` return, after every destination has been told.
    public func end() {
        events.yield(.endAsked)
    }
}
