public import LinuxSystem
public import PageProtocol
import Synchronization

/// The control connection: a thread that reads its messages, and one that writes what is put into it.
public final class ControlLane: Sendable {
    /// What the connection tells, in order, from a thread of its own.
    public enum Event: Sendable {
        /// What the peer says, and its place among the messages that nobody has dealt with yet.
        case message(ControlMessage, Inbox.Slot)
        /// The connection ended, or is to be ended; nothing that follows counts.
        case lost(reason: String)
        /// The peer has not said in time what it was to say; nothing that follows counts.
        case silent(reason: String)
    }

    private struct Threads: ~Copyable {
        var reader: JoinedThread?
        var writer: JoinedThread?
    }

    /// How long the control connection may still bring a reason after a page lane has broken.
    public static let lastWordTime = Duration.milliseconds(200)

    /// A PING with this number asks whether anybody is there.
    public static let anybody: UInt64 = 0

    private let connection: Connection
    private let patience: Task<Void, any Error>
    private let threads = Mutex(Threads())

    /// Takes a connected socket over.
    ///
    /// - Parameters:
    ///   - setupTime: within which the peer says what it is due to say before both sides are ready, however it spreads
    ///     that: until ``allowSilence()``.
    ///   - peerTimeout: the longest time without anything from the peer, which is asked whether it is there each second,
    ///     or four times within that time.
    ///   - onEvent: called from threads; must not block.
    public init(
        _ socket: consuming StreamSocket,
        setupTime: Duration = .seconds(10),
        peerTimeout: Duration,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        let connection = try Connection(socket, peerTimeout: peerTimeout)
        self.connection = connection
        patience = Task(priority: .high) { [peer = connection.socket.peer] in
            try await Task.sleep(for: setupTime)
            onEvent(.silent(reason: "\(peer) was not ready within \(setupTime)"))
        }
        var reader: JoinedThread? = try JoinedThread(name: "control-read", pace: .urgent) { connection.read(onEvent) }
        var writer: JoinedThread?
        do throws(SystemError) {
            writer = try JoinedThread(name: "control-write", pace: .urgent) { connection.write(onEvent) }
        } catch {
            // The reading thread is joined on the way out and must not wait for the peer.
            patience.cancel()
            connection.socket.shutdown()
            throw error
        }
        threads.withLock {
            swap(&reader, &$0.reader)
            swap(&writer, &$0.writer)
        }
    }

    deinit {
        finish()
    }

    /// Who is at the other end.
    public var peer: String { connection.socket.peer }

    /// Puts a message into the connection; a broken one swallows it.
    public func send(_ message: ControlMessage) throws(ProtocolError) {
        connection.put(try message.encode())
    }

    /// Puts an encoded frame into the connection; a broken one swallows it.
    public func send(frame: [UInt8]) {
        connection.put(frame)
    }

    /// From now on the peer may let the operator wait as long as it likes.
    public func allowSilence() {
        patience.cancel()
    }

    /// Ends the connection after what was put into it has left, and waits for that.
    public func finish() {
        patience.cancel()
        connection.close()
        var ended = Threads()
        threads.withLock { swap(&ended, &$0) }
    }
}

/// What the two threads of a control connection share.
private final class Connection: Sendable {
    /// Frames that may wait to be sent: more than all devices' states make. A peer that asks and never reads ends here.
    private static let outboxLimit = 4096
    /// Messages that may wait to be dealt with; the largest have 1 MiB. Then nothing more is received.
    private static let inboxLimit = 16

    private struct Outbox {
        var frames: [[UInt8]] = []
        var isClosing = false
    }

    let socket: StreamSocket
    private let peerTimeout: Duration
    /// When something last came from the peer.
    private let heard = Atomic<UInt64>(MonotonicClock.now())
    private let outbox = Mutex(Outbox())
    private let flag: EventDescriptor
    private let inbox: Inbox

    init(_ socket: consuming StreamSocket, peerTimeout: Duration) throws(SystemError) {
        self.socket = socket
        self.peerTimeout = peerTimeout
        flag = try EventDescriptor()
        inbox = try Inbox(limit: Connection.inboxLimit)
    }

    func put(_ frame: [UInt8]) {
        let fits = outbox.withLock { outbox in
            if !outbox.isClosing { outbox.frames.append(frame) }
            return outbox.frames.count <= Connection.outboxLimit
        }
        if !fits { socket.shutdown() }
        flag.raise()
    }

    func close() {
        outbox.withLock { $0.isClosing = true }
        inbox.close()
        flag.raise()
    }

    func read(_ onEvent: (ControlLane.Event) -> Void) {
        do {
            var pace = MessagePace()
            while let message = try ControlLane.receive(from: socket) {
                let now = MonotonicClock.now()
                heard.store(now, ordering: .relaxed)
                guard pace.admits(message, at: now) else { throw MessageFlood(peer: socket.peer) }
                switch message {
                case .ping(ControlLane.anybody): put(ControlLane.frame(.pong(ControlLane.anybody)))
                case .pong(ControlLane.anybody): break
                default:
                    // The peer's next words wait unread meanwhile.
                    guard let slot = inbox.enter(afterWait: { heard.store(MonotonicClock.now(), ordering: .releasing) })
                    else { return }
                    onEvent(.message(message, slot))
                }
            }
            onEvent(.lost(reason: "\(socket.peer) closed the connection"))
        } catch {
            // The socket stays open: the peer may still be told the reason.
            onEvent(.lost(reason: "\(error)"))
        }
    }

    /// Seconds after which the peer is asked: several times before it counts as silent.
    private var interval: Double { min(1, peerTimeout / .seconds(4)) }

    func write(_ onEvent: (ControlLane.Event) -> Void) {
        var isSilent = false
        while true {
            if flag.wait(seconds: interval) {
                flag.clear()
            } else if !isSilent {
                // Looked at first: whoever has just stopped to wait has noted before that the peer was heard.
                let isFull = inbox.isFull
                // A stopped process keeps its connections: the kernel's own keepalive does not see it.
                let (now, last) = (MonotonicClock.now(), heard.load(ordering: .acquiring))
                // Something may have come since.
                let silence = Duration.nanoseconds(Int64(now - min(now, last)))
                // A peer whose messages wait here is not the one that is silent.
                if silence > peerTimeout, !isFull {
                    isSilent = true
                    onEvent(.silent(reason: "\(socket.peer) has not been heard of for \(silence.seconds) s"))
                }
                put(ControlLane.frame(.ping(ControlLane.anybody)))
            }
            let (frames, isClosing) = outbox.withLock { outbox in
                defer { outbox.frames = [] }
                return (outbox.frames, outbox.isClosing)
            }
            do throws(SystemError) {
                for frame in frames { try socket.send(frame) }
            } catch {
                // The reading thread tells why.
                socket.shutdown()
                return
            }
            if isClosing {
                socket.shutdown()
                return
            }
        }
    }
}

extension ControlLane {
    /// A message that has no bounds to break.
    fileprivate static func frame(_ message: ControlMessage) -> [UInt8] {
        do throws(ProtocolError) {
            return try message.encode()
        } catch {
            preconditionFailure("\(message.kind) is always inside its bounds")
        }
    }

    /// Receives one message, or nil when the peer has closed the connection between two.
    public static func receive(from socket: borrowing StreamSocket) throws -> ControlMessage? {
        guard let header = try receive(ControlFrame.headerByteCount, from: socket, mayEnd: true) else { return nil }
        let (kind, length) = try ControlFrame.decodeHeader(header.span.bytes)
        let payload = try receive(length, from: socket, mayEnd: false) ?? []
        return try ControlMessage.decode(kind: kind, payload: payload.span.bytes)
    }

    /// Reads what has arrived of a connection's first frame, and nothing behind it.
    ///
    /// - Parameter bytes: what came of the frame before.
    /// - Returns: nil until all of the frame is there.
    static func readOpening(
        from socket: borrowing StreamSocket,
        into bytes: inout [UInt8]
    ) throws -> OpeningFrame? {
        while true {
            var missing = ControlFrame.headerByteCount - bytes.count
            var kind: FrameKind?
            if missing <= 0 {
                let header = Array(bytes.prefix(ControlFrame.headerByteCount))
                let (found, length) = try OpeningFrame.decodeHeader(header.span.bytes)
                (kind, missing) = (found, ControlFrame.headerByteCount + length - bytes.count)
            }
            if missing == 0, let kind {
                let payload = Array(bytes.dropFirst(ControlFrame.headerByteCount))
                return try OpeningFrame.decode(kind: kind, payload: payload.span.bytes)
            }
            var piece = [UInt8](repeating: 0, count: missing)
            guard let count = try piece.withUnsafeMutableBytes({ try socket.receiveNow(into: $0) }) else { return nil }
            guard count > 0 else { throw TruncatedFrame(peer: socket.peer) }
            bytes += piece.prefix(count)
        }
    }

    /// Receives exactly `count` bytes, whose bound was checked; nil if the peer ended before the first and may.
    private static func receive(
        _ count: Int,
        from socket: borrowing StreamSocket,
        mayEnd: Bool
    ) throws -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = try bytes.withUnsafeMutableBytes { try socket.receive(exactly: $0) }
        if received == count { return bytes }
        if received == 0, mayEnd { return nil }
        throw TruncatedFrame(peer: socket.peer)
    }
}

extension Duration {
    fileprivate var seconds: Int64 { components.seconds }
}

/// A peer that left in the middle of a frame.
struct TruncatedFrame: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection in the middle of a frame" }
}

/// How many short messages come: devices' states and bitmaps of pages come in many long ones, decisions are few.
private struct MessagePace {
    /// Bytes of device state from which on a message pays for itself.
    private static let longBytes = 1 << 14
    /// Messages that may come at once.
    static let burst = 4096.0
    /// Messages that may come in a second for long.
    static let perSecond = 1000.0

    private var room = burst
    private var last = MonotonicClock.now()

    /// Counts a message.
    ///
    /// - Returns: whether it is not one too many.
    mutating func admits(_ message: ControlMessage, at now: UInt64) -> Bool {
        if case .deviceData(let bytes) = message, bytes.count >= MessagePace.longBytes { return true }
        room = min(MessagePace.burst, room + Double(now &- last) / 1e9 * MessagePace.perSecond) - 1
        last = now
        return room >= 0
    }
}

/// A peer that sends so many messages that they can have no meaning.
private struct MessageFlood: Error, CustomStringConvertible {
    let peer: String
    var description: String {
        "\(peer) sends more than \(Int(MessagePace.burst)) short messages at once, or \(Int(MessagePace.perSecond)) a second"
    }
}
