import Connections
package import LinuxSystem
package import Logging
import PageProtocol
import PageServer

/// Serves a guest's memory from a snapshot file to any number of destinations.
///
/// The server runs until the file's content changes or ``end()`` is called.
package final class SnapshotServer: Sendable {
    /// An event of the server, in the order of occurrence.
    enum Event: Sendable {
        case arrived(LaneAcceptor.Arrival)
        /// An event of the link of the session with this number.
        case link(Int, ControlLink.Event)
        case pageServer(Int, SnapshotPageServer.Event)
        /// The file has got new times, and its content is proved to be the same.
        case renewed
        /// The content of the file was proved for sessions that wait; or its change was found.
        case proved(FileChanged?)
        /// The session's connections and threads are gone.
        case ended(Int)
        case endAsked
        /// The server is asked whether it handles events.
        case checked(UnsafeContinuation<Void, Never>)
    }

    /// The threads of all sessions.
    struct Threads: Sendable {
        let control: ControlThreads
        let lanes: SnapshotThreads

        init(peerTimeout: Duration, polling: Duration) throws(SystemError) {
            control = try ControlThreads(peerTimeout: peerTimeout)
            do throws(SystemError) {
                lanes = try SnapshotThreads(polling: polling)
            } catch {
                control.stop()
                throw error
            }
        }

        func stop() {
            control.stop()
            lanes.stop()
        }
    }

    /// The fewest connections that a server can be limited to: those of one guest with one fault thread.
    package static let leastConnections = 3
    /// The descriptors that are kept for connections that have not said yet what they are, and for the server itself.
    private static let reservedDescriptors = 256

    /// The most connections for which this process has descriptors.
    package static func mostConnections() throws(SystemError) -> Int {
        max(leastConnections, try DescriptorLimit.connections(keeping: reservedDescriptors))
    }

    private let file: SnapshotFile
    private let peerTimeout: Duration
    /// The most connections of all destinations together.
    package let connectionLimit: Int
    private let tally = SnapshotTally()
    private let threads: Threads
    private let logger: Logger
    private let acceptor: LaneAcceptor
    private let events = EventQueue<Event>()

    /// Makes a server and listens at an address.
    ///
    /// - Parameters:
    ///   - file: the snapshot's memory file.
    ///   - address: the address to listen at; port 0 lets the kernel choose.
    ///   - peerTimeout: the longest silence of a destination before the server counts it as gone.
    ///   - connectionLimit: the most connections of all destinations together; nil for as many as this process has
    ///     descriptors for.
    ///   - polling: the longest time that a thread polls for a guest's next request before the thread sleeps; zero to
    ///     never poll.
    ///   - logger: for lines about destinations.
    package init(
        _ file: SnapshotFile,
        at address: SocketAddress,
        peerTimeout: Duration = .seconds(5),
        connectionLimit: Int? = nil,
        polling: Duration = PollBudget.usualLimit,
        logger: Logger
    ) throws(SystemError) {
        self.file = file
        self.peerTimeout = peerTimeout
        self.connectionLimit = if let connectionLimit { connectionLimit } else { try Self.mostConnections() }
        self.logger = logger
        threads = try Threads(peerTimeout: peerTimeout, polling: polling)
        do throws(SystemError) {
            acceptor = try LaneAcceptor(at: address, logger: logger) { [events] in events.add(.arrived($0)) }
        } catch {
            threads.stop()
            throw error
        }
    }

    /// The address at which the server listens, with the port that the kernel chose.
    package var address: SocketAddress { acceptor.address }

    /// Serves destinations until the file's content changes or ``end()`` is called; can be called once.
    ///
    /// - Throws: the change of the file, after every destination was notified.
    package func run() async throws(FileChanged) {
        var sessions = Sessions(
            file: file,
            peerTimeout: peerTimeout,
            connectionLimit: connectionLimit,
            threads: threads,
            acceptor: acceptor,
            events: events,
            tally: tally,
            logger: logger
        )
        var change: FileChanged?
        while let event = await events.next() {
            switch event {
            case .arrived(let arrival):
                switch arrival.opening {
                case .hello(let hello): sessions.open(arrival.socket, hello)
                case .join(let join): sessions.join(arrival.socket, join)
                }
            case .link(let number, let event): sessions.hear(event, from: number)
            case .pageServer(let number, .laneLost(let lane, let reason)):
                sessions.lose(lane, of: number, reason: reason)
            case .ended(let number): sessions.remove(number)
            case .pageServer(_, .fileChanged(let found)), .proved(let found?):
                change = change ?? found
                sessions.endAll(because: found.description, isFinal: true)
            case .proved(nil): sessions.continueProved()
            case .renewed: sessions.announceRenewal()
            case .endAsked: sessions.endAll(because: "the server of \(file.path) is shutting down")
            case .checked(let continuation): continuation.resume()
            }
            sessions.tell()
            if sessions.haveEnded { break }
        }
        threads.stop()
        if let change { throw change }
    }

    /// What the server has done so far.
    package var figures: Figures { tally.figures }

    /// Returns once ``run()`` has handled every event so far; never, if it has returned.
    package func check() async {
        // A checked continuation would report that it is dropped when the server ends.
        await withUnsafeContinuation { events.add(.checked($0)) }
    }

    /// Makes ``run()`` return after every destination was notified.
    package func end() {
        events.add(.endAsked)
    }
}
