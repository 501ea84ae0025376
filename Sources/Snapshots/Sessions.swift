import Connections
import LinuxSystem
import Logging
import PageProtocol
import SourceAgent

/// The destinations that are served, and what is answered to what they say.
struct Sessions {
    /// Connections of all sessions together: each takes a descriptor and a thread.
    private static let connectionLimit = 512

    private let file: MappedFile
    private let peerTimeout: Duration
    private let acceptor: LaneAcceptor
    private let events: AsyncStream<SnapshotServer.Event>.Continuation
    private let logger: Logger
    private let instance = InstanceID.random()
    private let endings = ThreadGroup()
    private var sessions: [Int: SnapshotSession] = [:]
    private var lastNumber = 0
    /// Why no further destination is taken.
    private var closing: String?

    init(
        file: MappedFile,
        peerTimeout: Duration,
        acceptor: LaneAcceptor,
        events: AsyncStream<SnapshotServer.Event>.Continuation,
        logger: Logger
    ) {
        self.file = file
        self.peerTimeout = peerTimeout
        self.acceptor = acceptor
        self.events = events
        self.logger = logger
    }

    /// Whether all is over.
    var haveEnded: Bool { closing != nil && sessions.isEmpty }

    /// A destination has come.
    mutating func open(_ handover: Handover<StreamSocket>, _ hello: Hello) {
        guard let socket = handover.take() else { return }
        makeRoom(for: hello)
        if let reason = objection(to: hello) { return acceptor.refuse(socket, reason: reason) }
        lastNumber += 1
        do throws(SystemError) {
            let control = try ControlLane(socket, peerTimeout: peerTimeout) { [events, number = lastNumber] in
                events.yield(.control(number, $0))
            }
            let session = SnapshotSession(hello, nonce: .random(), control: control)
            sessions[lastNumber] = session
            send(.hello(answer(to: session)), on: control)
        } catch {
            logger.error("cannot take a destination: \(error)")
        }
    }

    /// Where all connections are in use, the oldest destination gives way that has not come so far as to be served for as
    /// long as a peer may be silent.
    private mutating func makeRoom(for hello: Hello) {
        guard !fits(hello) else { return }
        let late = sessions.filter { _, session in
            !session.isEnding && !session.awaited.isEmpty && ContinuousClock.now - session.begin > peerTimeout
        }
        guard let oldest = late.keys.min() else { return }
        end(oldest, because: "all connections are in use, and it has not asked for its pages")
    }

    private func fits(_ hello: Hello) -> Bool {
        let taken = sessions.values.reduce(0) { $0 + ($1.isEnding ? 0 : SnapshotSession.connectionCount(of: $1.hello)) }
        return taken + SnapshotSession.connectionCount(of: hello) <= Sessions.connectionLimit
    }

    /// Why a destination is not taken, or nil.
    private func objection(to hello: Hello) -> String? {
        if let closing { return closing }
        guard hello.role == .destination else { return "this is the server of a snapshot, which takes no guest" }
        guard hello.lease == .absent else { return "a snapshot is served without a run lease" }
        guard !sessions.values.contains(where: { $0.hello.migration == hello.migration }) else {
            return "a session of that id is there already"
        }
        guard fits(hello) else {
            return "all \(Sessions.connectionLimit) connections are in use; come again later"
        }
        return nil
    }

    private func answer(to session: SnapshotSession) -> Hello {
        Hello(
            role: .source,
            capabilities: [],
            migration: session.hello.migration,
            instance: instance,
            nonce: session.nonce,
            lease: .absent
        )
    }

    /// A lane of a destination has come.
    mutating func join(_ handover: Handover<StreamSocket>, _ join: Join) {
        guard let socket = handover.take() else { return }
        let name = SnapshotSession.LaneName(lane: join.lane, index: join.index)
        let found = sessions.first { _, session in
            session.hello.migration == join.migration && session.nonce == join.nonce && !session.isEnding
                && session.awaited.contains(name)
        }
        guard let (number, session) = found, let agent = session.agent else {
            return acceptor.refuse(socket, reason: "no session of that id and nonce waits for a \(join.lane) lane")
        }
        do throws(SystemError) {
            try agent.attach(SharedSocket(socket), as: join.lane)
        } catch {
            return end(number, because: "\(error)")
        }
        sessions[number]?.awaited.remove(name)
        guard sessions[number]?.awaited.isEmpty == true else { return }
        session.control.allowSilence()
        logger.notice("\(session.control.peer) is served \(file.path)")
    }

    /// A session's control connection has brought something.
    mutating func hear(_ event: ControlLane.Event, from number: Int) {
        guard let session = sessions[number], !session.isEnding else { return }
        switch event {
        case .message(.slices(let slices), _): take(slices, number, session)
        case .message(.bye, _): end(number, because: nil)
        case .message(.failure(let reason), _): end(number, because: "it says: \(reason)")
        case .message(let message, _):
            end(number, because: "the destination sent \(message.kind), which it never sends here")
        case .silent(let reason): end(number, because: reason)
        // One that has sent no slices has sent what makes no sense, and will again.
        case .lost(let reason): end(number, because: reason, isFinal: session.agent == nil)
        }
    }

    private mutating func take(_ slices: [SnapshotSlice], _ number: Int, _ session: SnapshotSession) {
        guard session.agent == nil else { return end(number, because: "the destination sent SLICES twice") }
        do throws(FileChanged) {
            try file.requireUnchanged()
        } catch {
            events.yield(.agent(number, .fileChanged(error)))
            return
        }
        let end = slices.reduce(0) { max($0, $1.end) }
        guard end <= file.byteCount else {
            let reason = "\(file.path) has \(file.byteCount) bytes, and the guest's regions end at \(end)"
            return self.end(number, because: reason, isFinal: true)
        }
        do throws(ProtocolError) {
            let agent = try SnapshotAgent(file: file, slices: slices) { [events] in events.yield(.agent(number, $0)) }
            sessions[number]?.agent = agent
            let identity = SnapshotIdentity(byteCount: UInt64(file.byteCount), modified: file.modified)
            send(.snapshot(identity), on: session.control)
        } catch {
            self.end(number, because: "\(error)", isFinal: true)
        }
    }

    /// A lane has broken. The control connection may still bring the reason.
    mutating func lose(_ lane: Lane, of number: Int, reason: String) {
        // Lanes that end because another did say nothing.
        guard sessions[number]?.hasLostLane == false else { return }
        sessions[number]?.hasLostLane = true
        Task { [events] in
            // Only a task that was cancelled sleeps less.
            try? await Task.sleep(for: ControlLane.lastWordTime)
            events.yield(.gone(number, reason: "the \(lane) lane broke: \(reason)"))
        }
    }

    /// Ends a session that has not ended.
    ///
    /// - Parameters:
    ///   - reason: told to the destination; nil if it has said BYE.
    ///   - isFinal: whether the destination asks in vain for what it has asked for, also when it comes again.
    mutating func end(_ number: Int, because reason: String?, isFinal: Bool = false) {
        guard let session = sessions[number], !session.isEnding else { return }
        sessions[number]?.isEnding = true
        if let reason {
            send(isFinal ? .refused(reason: reason) : .failure(reason: reason), on: session.control)
        }
        let why = reason.map { " (\($0))" } ?? ""
        hangUp(session) { [events, logger, path = file.path] in
            logger.notice("\(session.control.peer) is served \(path) no longer\(why): \(session.figures)")
            events.yield(.ended(number))
        }
    }

    /// Closes a session's connections on a thread of its own: a destination that reads nothing may hold that up.
    private func hangUp(_ session: SnapshotSession, _ onEnd: @escaping @Sendable () -> Void) {
        @Sendable func close() {
            session.agent?.detach()
            session.control.finish()
            onEnd()
        }
        do throws(SystemError) {
            try endings.run("hang-up") { close() }
        } catch {
            close()
        }
    }

    /// Ends all sessions, and takes no further ones.
    mutating func endAll(because reason: String) {
        closing = reason
        acceptor.close()
        for number in sessions.keys { end(number, because: reason) }
    }

    /// A session has ended altogether.
    mutating func remove(_ number: Int) {
        sessions[number] = nil
    }

    private func send(_ message: ControlMessage, on control: ControlLane) {
        do throws(ProtocolError) {
            try control.send(message)
        } catch {
            logger.error("cannot send \(message.kind): \(error)")
        }
    }
}
