import Glibc
import Synchronization
import SystemPackage

/// Accepts the connections of a listener, and hands each on once its first message is complete.
///
/// Until then a connection costs a descriptor and no thread, and cannot lock others out. The number of such connections
/// is bounded for each peer and for all peers together, and the oldest is dropped to make room for the next.
package final class Openings<Message: Sendable>: Sendable {
    /// Bounds on the connections whose first message is incomplete.
    package struct Bounds: Sendable {
        /// The largest number of such connections of all peers together.
        package var total = 128
        /// The largest number of such connections of one peer.
        package var perPeer = 32
        /// Nanoseconds from accepting a connection until its first message must be complete.
        package var nanoseconds: UInt64 = 5_000_000_000

        /// The default bounds.
        package init() {}
    }

    /// What to do with connections, on the thread that accepts them; no function here may wait for a peer.
    package struct Handling: Sendable {
        /// Reads what has arrived of the first message, and nothing behind it.
        ///
        /// Called when bytes have arrived at the socket, or when its peer has closed it. Appends to the given bytes,
        /// which hold what was read before. Returns the message once it is complete, and nil before. Throws the reason
        /// to refuse the connection.
        package var read: @Sendable (borrowing StreamSocket, inout [UInt8]) throws -> Message?
        /// Takes over a connection and its first message.
        ///
        /// Throws if no thread can be started for the connection. The connection is then kept, and the function is
        /// called again.
        package var open: @Sendable (Handover<StreamSocket>, Message) throws(SystemError) -> Void
        /// Called with each connection that is dropped, and the reason.
        package var drop: @Sendable (consuming StreamSocket, any Error) -> Void
        /// Returns the error if this process lacks what the next message needs.
        ///
        /// The message then waits in its socket.
        package var shortage: @Sendable () -> SystemError?
        /// Called with the error when a shortage of descriptors, memory or threads begins.
        package var onShortage: @Sendable (SystemError) -> Void
        /// Called with the error that ended accepting; not called after ``Openings/close()``.
        package var onEnd: @Sendable (SystemError) -> Void

        package init(
            read: @escaping @Sendable (borrowing StreamSocket, inout [UInt8]) throws -> Message?,
            open: @escaping @Sendable (Handover<StreamSocket>, Message) throws(SystemError) -> Void,
            drop: @escaping @Sendable (consuming StreamSocket, any Error) -> Void,
            shortage: @escaping @Sendable () -> SystemError? = { nil },
            onShortage: @escaping @Sendable (SystemError) -> Void,
            onEnd: @escaping @Sendable (SystemError) -> Void
        ) {
            self.read = read
            self.open = open
            self.drop = drop
            self.shortage = shortage
            self.onShortage = onShortage
            self.onEnd = onEnd
        }
    }

    private let listener: Listener
    private let thread = Mutex<JoinedThread?>(nil)

    /// Starts to accept connections, on a thread of its own.
    ///
    /// - Parameters:
    ///   - listener: the listening socket. If it has a socket file, ``close()`` removes the file.
    ///   - name: the thread's name.
    ///   - bounds: bounds on the connections whose first message is incomplete.
    ///   - handling: what to do with connections.
    package init(
        _ listener: consuming Listener,
        name: String,
        bounds: Bounds = Bounds(),
        _ handling: Handling
    ) throws(SystemError) {
        self.listener = listener
        var thread: JoinedThread? = try JoinedThread(name: name) { [self] in
            var queue = OpeningQueue<Message>(bounds: bounds, handling: handling)
            do throws(SystemError) {
                try queue.run(self.listener)
            } catch {
                handling.onEnd(error)
            }
        }
        self.thread.withLock { swap(&thread, &$0) }
    }

    /// Where connections are accepted, with the port that the kernel chose.
    package var address: SocketAddress { listener.address }

    /// Stops accepting connections, and closes those whose first message is incomplete.
    package func close() {
        listener.shutdown()
        listener.file?.remove()
    }

    /// Stops accepting connections, and waits for the thread to end.
    package func stop() {
        close()
        waitForEnd()
    }

    /// Waits until the thread has ended, after ``close()`` or an error.
    package func waitForEnd() {
        var thread: JoinedThread? = nil
        self.thread.withLock { swap(&thread, &$0) }
        thread = nil
    }
}

/// Why a connection was dropped before its first message was complete.
package enum OpeningRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The connection has timed out.
    case tooLate
    /// The connection was the oldest when another one needed room.
    case madeRoom

    /// The reason, in one line.
    package var description: String {
        switch self {
        case .tooLate: "the connection timed out before its first message was complete"
        case .madeRoom: "too many connections have sent no complete first message, and this one was the oldest of them"
        }
    }
}

/// The connections whose first message is incomplete, oldest first.
///
/// A queue belongs to one thread.
private struct OpeningQueue<Message: Sendable>: ~Copyable {
    private final class Opening {
        let origin: PeerOrigin
        let deadline: UInt64
        /// Whether the queue has waited since it accepted the connection, so that a message sent at once would have
        /// been seen.
        var wasLookedAt = false
        var socket: StreamSocket?
        var bytes: [UInt8] = []

        init(_ socket: consuming StreamSocket, deadline: UInt64) {
            origin = socket.origin
            self.socket = consume socket
            self.deadline = deadline
        }

        func take() -> StreamSocket? {
            var taken: StreamSocket? = nil
            swap(&taken, &socket)
            return taken
        }
    }

    /// Connections accepted in a row before those in the queue are looked at again; fewer than one peer may have.
    private static var batch: Int { 8 }
    /// Nanoseconds between attempts during a shortage of descriptors, memory or threads.
    private static var pause: UInt64 { 100_000_000 }

    private let bounds: Openings<Message>.Bounds
    private let handling: Openings<Message>.Handling
    private var openings: [Opening] = []
    private var isShort = false

    init(bounds: Openings<Message>.Bounds, handling: Openings<Message>.Handling) {
        self.bounds = bounds
        self.handling = handling
    }

    mutating func run(_ listener: borrowing Listener) throws(SystemError) {
        while true {
            let arrived = try wait(listener)
            if !arrived.openings.isEmpty || arrived.atListener, !listener.isClosed, let error = handling.shortage() {
                // What has arrived is not too late because of this process.
                wait(because: error)
                continue
            }
            takeUp(arrived.openings, listener)
            guard !listener.isClosed else { return }
            let now = MonotonicClock.now()
            while let first = openings.first, first.deadline <= now { drop(at: 0, because: .tooLate) }
            guard arrived.atListener else { continue }
            guard try accept(from: listener) else { return }
        }
    }

    /// Accepts connections that wait, at most ``batch`` of them.
    ///
    /// - Returns: false if the listener was shut down.
    private mutating func accept(from listener: borrowing Listener) throws(SystemError) -> Bool {
        for _ in 0..<Self.batch {
            switch try listener.next(isWaiting: false) {
            case .connection(let socket):
                isShort = false
                makeRoom(for: socket.origin)
                openings.append(Opening(socket, deadline: MonotonicClock.now() + bounds.nanoseconds))
            case .shortage(let error):
                // Dropping the oldest connection that has said nothing frees a descriptor.
                if !openings.isEmpty { drop(at: oldest(of: openings.indices), because: .madeRoom) }
                wait(because: error)
                return true
            case .nobody: return true
            case .shutDown: return false
            }
        }
        return true
    }

    /// Waits until bytes or a connection have arrived, or the oldest opening's time is over.
    ///
    /// - Returns: the openings with something to read, and whether a peer has connected.
    private func wait(_ listener: borrowing Listener) throws(SystemError) -> (openings: [Opening], atListener: Bool) {
        var watched = [pollfd(fd: listener.descriptor.raw, events: Int16(POLLIN), revents: 0)]
        for opening in openings {
            let raw = opening.socket?.descriptor.raw ?? -1
            watched.append(pollfd(fd: raw, events: Int16(POLLIN), revents: 0))
        }
        watched.append(pollfd(fd: listener.wakeDescriptor, events: Int16(POLLIN), revents: 0))
        let now = MonotonicClock.now()
        let timeout = openings.first.map { CInt(clamping: ($0.deadline - min(now, $0.deadline)) / 1_000_000 + 1) } ?? -1
        _ = try attempt("wait for connections at \(listener.address)") { () throws(Errno) in
            try kernel(.poll) { orErrno(poll(&watched, nfds_t(watched.count), timeout)) }
        }
        for opening in openings { opening.wasLookedAt = true }
        let arrived = zip(openings, watched.dropFirst()).compactMap { $1.revents == 0 ? nil : $0 }
        return (arrived, watched[0].revents != 0)
    }

    private mutating func takeUp(_ arrived: [Opening], _ listener: borrowing Listener) {
        for opening in arrived {
            guard let socket = opening.take() else { continue }
            do {
                if let message = try handling.read(socket, &opening.bytes) {
                    isShort = false
                    forget(opening)
                    open(Handover(socket), message, listener)
                } else {
                    opening.socket = consume socket
                }
            } catch {
                forget(opening)
                handling.drop(socket, error)
            }
        }
    }

    private mutating func open(_ handover: Handover<StreamSocket>, _ message: Message, _ listener: borrowing Listener) {
        repeat {
            do throws(SystemError) {
                return try handling.open(handover, message)
            } catch {
                wait(because: error)
            }
        } while !listener.isClosed
    }

    private mutating func wait(because error: SystemError) {
        if !isShort { handling.onShortage(error) }
        isShort = true
        MonotonicClock.sleep(nanoseconds: Self.pause)
    }

    /// Drops the oldest opening if the next one would exceed a bound.
    private mutating func makeRoom(for origin: PeerOrigin) {
        let own = openings.indices.filter { openings[$0].origin == origin }
        if own.count >= bounds.perPeer {
            drop(at: oldest(of: own), because: .madeRoom)
        } else if openings.count >= bounds.total {
            drop(at: oldest(of: openings.indices), because: .madeRoom)
        }
    }

    /// The oldest of some openings, preferably of those that were looked at.
    ///
    /// A first message that has arrived in part gives an opening no preference.
    private func oldest(of candidates: some Collection<Int>) -> Int {
        candidates.first { openings[$0].wasLookedAt } ?? candidates.first ?? 0
    }

    private mutating func drop(at index: Int, because reason: OpeningRefusal) {
        if let socket = openings.remove(at: index).take() { handling.drop(socket, reason) }
    }

    private mutating func forget(_ opening: Opening) {
        openings.removeAll { $0 === opening }
    }
}
