import Connections
import Identity
import LinuxSystem
import Logging
import PageProtocol
import PageServer

/// The sessions of a snapshot server: one per destination, with the answers to each destination's messages.
struct Sessions {
    private let file: SnapshotFile
    private let peerTimeout: Duration
    /// The limit on connections of all sessions together; each connection takes a descriptor.
    private let connectionLimit: Int
    private let threads: SnapshotServer.Threads
    private let acceptor: LaneAcceptor
    private let events: EventQueue<SnapshotServer.Event>
    private let logger: Logger
    private let instance = InstanceID.random()
    private let blocking: BlockingWork
    private let tally: SnapshotTally
    private var sessions: [Int: SnapshotSession] = [:]
    private var lastNumber = 0
    /// The identity of the file that destinations were told last.
    private var announced: SnapshotIdentity
    /// The slices of sessions that wait until the content of the file is proved, by the sessions' numbers.
    private var unproved: [Int: [SnapshotSlice]] = [:]
    /// Whether a thread proves the content of the file for sessions.
    private var isProving = false
    /// Why the server accepts no further destination; nil while it does.
    private var closing: String?

    init(
        file: SnapshotFile,
        peerTimeout: Duration,
        connectionLimit: Int,
        threads: SnapshotServer.Threads,
        acceptor: LaneAcceptor,
        events: EventQueue<SnapshotServer.Event>,
        tally: SnapshotTally,
        logger: Logger
    ) {
        self.tally = tally
        self.file = file
        self.peerTimeout = peerTimeout
        self.connectionLimit = connectionLimit
        self.threads = threads
        self.acceptor = acceptor
        self.events = events
        self.logger = logger
        announced = file.identity
        blocking = BlockingWork(logger: logger)
    }

    /// Whether the server is closing and every session has ended.
    var haveEnded: Bool { closing != nil && sessions.isEmpty }

    /// Opens a session for a destination that has sent HELLO, or refuses the connection.
    mutating func open(_ handover: Handover<StreamSocket>, _ hello: Hello) {
        guard let socket = handover.take() else { return }
        let origin = socket.origin
        makeRoom(for: hello)
        if let reason = objection(to: hello) {
            tally.noteRefusal()
            return acceptor.refuse(socket, reason: reason)
        }
        lastNumber += 1
        do throws(SystemError) {
            let link = try ControlLink(
                socket,
                peerTimeout: peerTimeout,
                threads: threads.control,
                hangUps: blocking,
                logger: logger,
                events: events
            ) { [number = lastNumber] in .link(number, $0) }
            let session = SnapshotSession(hello, nonce: .random(), link: link, from: origin)
            sessions[lastNumber] = session
            link.send(.hello(answer(to: session)))
        } catch {
            logger.error("cannot serve a destination: \(error)")
        }
    }

    /// Ends idle sessions if all connections are in use, until the new destination fits.
    ///
    /// A session is idle if its destination has requested no page for longer than `peerTimeout`. Idle sessions end at
    /// the address that has the most connections, the longest idle first. Both a destination whose session ends here
    /// and one that is refused may reconnect: a host that takes all connections loses its own idle sessions to them.
    private mutating func makeRoom(for hello: Hello) {
        guard !fits(hello) else { return }
        var connections: [PeerOrigin: Int] = [:]
        for (number, session) in sessions where !session.isEnding {
            sessions[number]?.noteRequests()
            connections[session.origin, default: 0] += SnapshotSession.connectionCount(of: session.hello)
        }
        let idle = sessions.filter { !$1.isEnding && MonotonicClock.time(since: $1.asked.since) > peerTimeout }
        let most = idle.map { connections[$1.origin] ?? 0 }.max()
        let candidates = idle.filter { connections[$1.origin] == most }.sorted {
            $0.value.asked.since < $1.value.asked.since
        }
        // The new destination may need the connections of several sessions. No session ends unless enough would become
        // free.
        let free = candidates.reduce(0) { $0 + SnapshotSession.connectionCount(of: $1.value.hello) }
        guard fits(hello, after: free) else { return }
        for candidate in candidates where !fits(hello) {
            end(candidate.key, because: "all connections are in use, and this session is idle; reconnect later")
        }
    }

    /// The connections of the sessions that are not ending.
    private var taken: Int {
        sessions.values.reduce(0) { $0 + ($1.isEnding ? 0 : SnapshotSession.connectionCount(of: $1.hello)) }
    }

    /// Tells the numbers of sessions and connections to those who look at the server.
    func tell() {
        tally.note(sessions: sessions.values.count { !$0.isEnding }, connections: taken)
    }

    /// Whether a new destination's connections fit into the limit.
    ///
    /// - Parameters:
    ///   - hello: the HELLO of the new destination.
    ///   - free: connections that could be freed.
    private func fits(_ hello: Hello, after free: Int = 0) -> Bool {
        taken - free + SnapshotSession.connectionCount(of: hello) <= connectionLimit
    }

    /// The reason to refuse a destination; nil to accept it.
    private func objection(to hello: Hello) -> String? {
        if let closing { return closing }
        guard hello.role == .destination else { return "this is a snapshot server, which takes no guest" }
        guard hello.lease == .absent else { return "a snapshot is served without a run lease" }
        guard hello.capabilities.contains(.snapshotProof) else {
            return "the destination's release cannot tell one snapshot from another by its proof; "
                + "run the same pageferry release on both hosts"
        }
        guard !sessions.values.contains(where: { $0.hello.migration == hello.migration }) else {
            return "a session with that id already exists"
        }
        guard fits(hello) else {
            return "all \(connectionLimit) connections are in use; try again later"
        }
        return nil
    }

    private func answer(to session: SnapshotSession) -> Hello {
        Hello(
            role: .source,
            capabilities: .snapshotProof,
            migration: session.hello.migration,
            instance: instance,
            nonce: session.nonce,
            lease: .absent
        )
    }

    /// Adds a connection that has sent JOIN to the session that waits for this lane, or refuses the connection.
    mutating func join(_ handover: Handover<StreamSocket>, _ join: Join) {
        guard let socket = handover.take() else { return }
        let name = SnapshotSession.LaneName(lane: join.lane, index: join.index)
        let found = sessions.first { _, session in
            session.hello.migration == join.migration && session.nonce == join.nonce && !session.isEnding
                && session.awaited.contains(name)
        }
        guard let (number, session) = found, let pageServer = session.pageServer else {
            tally.noteRefusal()
            return acceptor.refuse(socket, reason: "no session with that id and nonce waits for a \(join.lane) lane")
        }
        do throws(SystemError) {
            try socket.tolerateSilence(of: peerTimeout)
            try pageServer.attach(SharedSocket(socket), as: join.lane)
        } catch {
            return end(number, because: "\(error)")
        }
        sessions[number]?.awaited.remove(name)
        guard sessions[number]?.awaited.isEmpty == true else { return }
        session.link.allowSilence()
        logger.notice("\(session.link.peer) is served \(file.path)")
    }

    /// Handles an event of a session's link.
    mutating func hear(_ event: ControlLink.Event, from number: Int) {
        guard let session = sessions[number], !session.isEnding else { return }
        switch event {
        case .message(.slices(let slices), _): take(slices, number, session)
        case .message(.bye, _): end(number, because: nil)
        case .message(.failure(let reason), _): end(number, because: "the destination reports: \(reason)")
        case .message(let message, _):
            end(number, because: "the destination sent \(message.kind), which it never sends here")
        case .silent(let reason), .failed(let reason): end(number, because: reason)
        // A destination that was lost before it sent SLICES has sent bytes that are not valid, and would send them
        // again.
        case .broken(let reason): end(number, because: reason, isFinal: session.pageServer == nil)
        }
    }

    private mutating func take(_ slices: [SnapshotSlice], _ number: Int, _ session: SnapshotSession) {
        guard session.pageServer == nil, unproved[number] == nil else {
            return end(number, because: "the destination sent SLICES twice")
        }
        guard file.isProved else {
            // The proof may read all of the file, and the destination is not late because of this server.
            session.link.allowSilence()
            unproved[number] = slices
            return prove()
        }
        let end = slices.reduce(0) { max($0, $1.end) }
        guard end <= file.byteCount else {
            let reason = "\(file.path) has \(file.byteCount) bytes, and the guest's regions end at \(end)"
            return self.end(number, because: reason, isFinal: true)
        }
        do throws(ProtocolError) {
            let pageServer = try SnapshotPageServer(
                file: file.mapped,
                slices: slices,
                threads: threads.lanes,
                renew: { [file, events] () throws(FileChanged) in
                    try file.renew()
                    events.add(.renewed)
                },
                onEvent: { [events] in events.add(.pageServer(number, $0)) }
            )
            sessions[number]?.pageServer = pageServer
            tally.add(pageServer, as: number)
            session.link.send(.snapshot(announced))
        } catch {
            self.end(number, because: "\(error)", isFinal: true)
        }
    }

    /// Proves the content of the file, while other sessions are opened, served and ended.
    private mutating func prove() {
        guard !isProving else { return }
        isProving = true
        blocking.run("prove") { [file, events] in
            do throws(FileChanged) {
                try file.renew()
                events.add(.proved(nil))
            } catch {
                events.add(.proved(error))
            }
        }
    }

    /// Serves the sessions that waited for the proof of the file's content.
    mutating func continueProved() {
        isProving = false
        announceRenewal()
        let waiting = unproved
        unproved = [:]
        for (number, slices) in waiting {
            guard let session = sessions[number], !session.isEnding else { continue }
            take(slices, number, session)
        }
    }

    /// Tells the destinations the identity of the file, if the file has got new times since they were told.
    mutating func announceRenewal() {
        let identity = file.identity
        guard identity != announced else { return }
        announced = identity
        logger.notice("the times of \(file.path) have changed, and its content is proved to be the same")
        for session in sessions.values where session.pageServer != nil && !session.isEnding {
            session.link.send(.snapshot(identity))
        }
    }

    /// Ends a session whose lane broke.
    func lose(_ lane: Lane, of number: Int, reason: String) {
        sessions[number]?.link.laneLost(lane, reason: reason)
    }

    /// Ends a session, unless it is already ending.
    ///
    /// - Parameters:
    ///   - number: the session's number.
    ///   - reason: sent to the destination; nil if the destination has sent BYE.
    ///   - isFinal: whether the destination would fail again if it reconnected with the same request.
    mutating func end(_ number: Int, because reason: String?, isFinal: Bool = false) {
        guard let session = sessions[number], !session.isEnding else { return }
        sessions[number]?.isEnding = true
        if let reason { session.link.send(isFinal ? .refused(reason: reason) : .failure(reason: reason)) }
        let why = reason.map { " (\($0))" } ?? ""
        session.link.close {
            session.pageServer?.detach()
        } onEnd: { [events, logger, path = file.path] in
            logger.notice("\(session.link.peer) is served \(path) no longer\(why): \(session.figures)")
            events.add(.ended(number))
        }
    }

    /// Ends all sessions and refuses new ones.
    ///
    /// - Parameters:
    ///   - reason: sent to the destinations.
    ///   - isFinal: whether no later server of this file can serve the destinations.
    mutating func endAll(because reason: String, isFinal: Bool = false) {
        closing = reason
        acceptor.close()
        for number in sessions.keys { end(number, because: reason, isFinal: isFinal) }
    }

    /// Removes a session whose connections and threads are gone.
    mutating func remove(_ number: Int) {
        sessions[number] = nil
        tally.remove(number)
    }
}
