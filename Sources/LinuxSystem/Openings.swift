import Glibc
import Synchronization
import SystemPackage

/// Takes the connections of a listener, and hands each on once it has said what it is.
///
/// A connection that has said nothing costs a descriptor and no thread, and keeps nobody out: one peer has a few of
/// them, all peers together have a bounded number, and the oldest of them makes room for the next.
public final class Openings<Message: Sendable>: Sendable {
    /// How many connections may not have said yet what they are, and for how long.
    public struct Bounds: Sendable {
        /// Of all peers together.
        public var total = 128
        /// Of one peer.
        public var perPeer = 32
        /// Nanoseconds for a connection to say what it is, however it spreads that.
        public var nanoseconds: UInt64 = 5_000_000_000

        /// The usual bounds.
        public init() {}
    }

    /// What is done with connections, on the thread that takes them; nothing here may wait for a peer.
    public struct Handling: Sendable {
        /// Reads what has arrived of the first message, and nothing behind it.
        ///
        /// Gets the socket, at which something has arrived or which the peer has closed, and the bytes that came before,
        /// to which it adds. Returns the message once it is whole, nil before; throws why it is refused.
        public var read: @Sendable (borrowing StreamSocket, inout [UInt8]) throws -> Message?
        /// Takes over a connection with its first message. One that cannot be taken for want of a thread stays, and waits.
        public var open: @Sendable (Handover<StreamSocket>, Message) throws(SystemError) -> Void
        /// Told of a connection that is dropped, with the reason.
        public var drop: @Sendable (consuming StreamSocket, any Error) -> Void
        /// Told once that no connection can be taken for want of descriptors, memory or threads.
        public var onShortage: @Sendable (SystemError) -> Void
        /// Told why no further connection is taken, unless the openings were closed.
        public var onEnd: @Sendable (SystemError) -> Void

        /// Makes a handling of its parts.
        public init(
            read: @escaping @Sendable (borrowing StreamSocket, inout [UInt8]) throws -> Message?,
            open: @escaping @Sendable (Handover<StreamSocket>, Message) throws(SystemError) -> Void,
            drop: @escaping @Sendable (consuming StreamSocket, any Error) -> Void,
            onShortage: @escaping @Sendable (SystemError) -> Void,
            onEnd: @escaping @Sendable (SystemError) -> Void
        ) {
            self.read = read
            self.open = open
            self.drop = drop
            self.onShortage = onShortage
            self.onEnd = onEnd
        }
    }

    private let listener: Listener
    private let thread = Mutex<JoinedThread?>(nil)

    /// Takes connections from now on.
    ///
    /// - Parameter name: of the thread.
    public init(
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

    /// Where connections are taken, with the port the kernel chose.
    public var address: SocketAddress { listener.address }

    /// Takes no more connections, and drops those that have not said what they are.
    public func close() {
        listener.shutdown()
        listener.file?.remove()
    }

    /// Takes no more connections, and waits for the thread.
    public func stop() {
        close()
        waitForEnd()
    }

    /// Waits until the openings are closed.
    public func waitForEnd() {
        var thread: JoinedThread? = nil
        self.thread.withLock { swap(&thread, &$0) }
        thread = nil
    }
}

/// Why a connection that had not said what it is was dropped.
public enum OpeningRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The time is over.
    case tooLate
    /// Others came, and this one had been silent for longest.
    case madeRoom

    /// One line.
    public var description: String {
        switch self {
        case .tooLate: "the connection timed out before it said what it is"
        case .madeRoom: "too many connections have not said what they are, and this one was the oldest of them"
        }
    }
}

/// The connections that have not said what they are, oldest first. Belongs to one thread.
private struct OpeningQueue<Message: Sendable>: ~Copyable {
    private final class Opening {
        let origin: PeerOrigin
        let deadline: UInt64
        /// Whether it had its chance: something that it sent with its connection would have been seen.
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

    /// Connections that are accepted before those that are here are looked at again: fewer than one peer may have.
    private static var batch: Int { 8 }
    /// Nanoseconds until a connection is tried again that could not be taken for want of descriptors, memory or threads.
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
            takeUp(arrived.openings, listener)
            let now = MonotonicClock.now()
            while let first = openings.first, first.deadline <= now { drop(at: 0, because: .tooLate) }
            guard arrived.atListener else { continue }
            guard try accept(from: listener) else { return }
        }
    }

    /// Accepts those that wait, though not more than a few.
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
                // The oldest peer that has said nothing gives its descriptor back.
                if !openings.isEmpty { drop(at: oldest(of: openings.indices), because: .madeRoom) }
                wait(because: error)
                return true
            case .nobody: return true
            case .shutDown: return false
            }
        }
        return true
    }

    /// Waits until something has come, or a connection's time is over.
    ///
    /// - Returns: which openings have something to be read, and whether somebody has connected.
    private func wait(_ listener: borrowing Listener) throws(SystemError) -> (openings: [Opening], atListener: Bool) {
        var watched = [pollfd(fd: listener.descriptor.raw, events: Int16(POLLIN), revents: 0)]
        for opening in openings {
            let raw = opening.socket?.descriptor.raw ?? -1
            watched.append(pollfd(fd: raw, events: Int16(POLLIN), revents: 0))
        }
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

    /// Drops the oldest opening where the next one would be one too many.
    private mutating func makeRoom(for origin: PeerOrigin) {
        let own = openings.indices.filter { openings[$0].origin == origin }
        if own.count >= bounds.perPeer {
            drop(at: oldest(of: own), because: .madeRoom)
        } else if openings.count >= bounds.total {
            drop(at: oldest(of: openings.indices), because: .madeRoom)
        }
    }

    /// The oldest of some openings. Whether a part of the first message has come says nothing for it.
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
