package import LinuxSystem
package import PageProtocol
import Synchronization

/// The control connection, with one thread that reads messages and one that writes them.
package final class ControlLane: Sendable {
    /// The names of the two threads, as `top -H` shows them.
    package static let threadNames = [readingThread, writingThread]
    private static let readingThread = "control-read"
    private static let writingThread = "control-write"

    /// An event of the connection, delivered in order from one of its threads.
    package enum Event: Sendable {
        /// A message of the peer, with its place in the inbox until the message has been handled.
        case message(ControlMessage, Inbox.Slot)
        /// The connection broke, or must be closed; later events do not count.
        case lost(reason: String)
        /// The peer exceeded a time limit; later events do not count.
        case silent(reason: String)
    }

    private struct Threads: ~Copyable {
        var reader: JoinedThread?
        var writer: JoinedThread?
    }

    /// The number of a PING that only checks whether the peer is alive.
    package static let anybody: UInt64 = 0

    /// Seconds between two PINGs: at least four within the longest silence.
    static func pingInterval(_ peerTimeout: Duration) -> Double { min(1, peerTimeout / .seconds(4)) }

    private let connection: Connection
    private let patience: Task<Void, any Error>
    private let threads = Mutex(Threads())

    /// Takes over a connected socket and starts its threads.
    ///
    /// - Parameters:
    ///   - socket: the connection.
    ///   - setupTime: the time from now until ``allowSilence()``, in which the peer must say all that it has to say
    ///     before both sides are ready. Nil for 10 s, or for `peerTimeout` if that is longer.
    ///   - peerTimeout: the longest silence of the peer. A PING is sent each second, or four times within `peerTimeout`
    ///     if that is shorter.
    ///   - onEvent: called from the connection's threads; must not block.
    package init(
        _ socket: consuming StreamSocket,
        setupTime: Duration? = nil,
        peerTimeout: Duration,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        try socket.tolerateSilence(of: peerTimeout)
        let setupTime = setupTime ?? max(.seconds(10), peerTimeout)
        let connection = try Connection(socket, peerTimeout: peerTimeout)
        self.connection = connection
        patience = Task(priority: .high) { [peer = connection.socket.peer] in
            try await Task.sleep(for: setupTime)
            onEvent(.silent(reason: "\(peer) was not ready within \(setupTime.text)"))
        }
        var reader: JoinedThread? = try JoinedThread(name: ControlLane.readingThread, pace: .urgent) {
            connection.read(onEvent)
        }
        var writer: JoinedThread?
        do throws(SystemError) {
            writer = try JoinedThread(name: ControlLane.writingThread, pace: .urgent) { connection.write(onEvent) }
        } catch {
            // The reading thread is joined when this scope ends, and must not wait for the peer then.
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

    /// The address of the peer, as text.
    package var peer: String { connection.socket.peer }

    /// Queues a message to be sent; a broken connection drops it.
    ///
    /// - Throws: the error of a message that the peer would refuse.
    package func send(_ message: ControlMessage) throws(ProtocolError) {
        connection.put(try message.encode())
    }

    /// Queues an encoded frame to be sent; a broken connection drops it.
    package func send(frame: [UInt8]) {
        connection.put(frame)
    }

    /// Whether the peer's host has acknowledged every byte of the queued frames.
    package var isDrained: Bool { connection.isDrained }

    /// Ends the time limit of the setup: the peer may now wait for its operator without a limit.
    package func allowSilence() {
        patience.cancel()
    }

    /// Closes the connection after all queued frames were sent, and waits for that.
    package func finish() {
        patience.cancel()
        connection.close()
        var ended = Threads()
        threads.withLock { swap(&ended, &$0) }
    }
}

/// The state that the two threads of a control connection share.
private final class Connection: Sendable {
    /// The limit on queued frames, larger than the number of frames of all devices' states.
    ///
    /// A peer that makes us answer but does not read reaches this limit, and the connection is closed.
    private static let outboxLimit = 4096
    /// The limit on messages that wait to be handled, each of at most 1 MiB.
    ///
    /// At the limit, the reading thread stops receiving.
    private static let inboxLimit = 16

    private struct Outbox {
        var frames: [[UInt8]] = []
        /// Whether frames were taken out of the queue and are being sent.
        var isSending = false
        var isClosing = false
    }

    let socket: StreamSocket
    private let peerTimeout: Duration
    /// The time at which the peer's latest message arrived.
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

    var isDrained: Bool {
        guard outbox.withLock({ $0.frames.isEmpty && !$0.isSending }) else { return false }
        return socket.unconfirmedBytes ?? 0 == 0
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
                    // While the inbox is full, the peer's next messages stay unread.
                    guard let slot = inbox.enter(afterWait: { heard.store(MonotonicClock.now(), ordering: .releasing) })
                    else { return }
                    onEvent(.message(message, slot))
                }
            }
            onEvent(.lost(reason: "\(socket.peer) closed the connection"))
        } catch {
            // The socket stays open, so that the reason can still be sent to the peer.
            onEvent(.lost(reason: "\(error)"))
        }
    }

    func write(_ onEvent: (ControlLane.Event) -> Void) {
        var isSilent = false
        while true {
            if flag.wait(seconds: ControlLane.pingInterval(peerTimeout)) {
                flag.clear()
            } else if !isSilent {
                // Read `isFull` first: after a wait, the reading thread stores `heard` before `isFull` becomes false.
                let isFull = inbox.isFull
                // A stopped process keeps its connections, so the kernel's keepalive does not notice it.
                let silence = MonotonicClock.time(since: heard.load(ordering: .acquiring))
                // A peer whose messages wait in our inbox is not silent.
                if silence > peerTimeout, !isFull {
                    isSilent = true
                    onEvent(.silent(reason: "\(socket.peer) has been silent for \(silence.text)"))
                }
                put(ControlLane.frame(.ping(ControlLane.anybody)))
            }
            let (frames, isClosing) = outbox.withLock { outbox in
                defer { outbox.frames = [] }
                outbox.isSending = !outbox.frames.isEmpty
                return (outbox.frames, outbox.isClosing)
            }
            do throws(SystemError) {
                for frame in frames { try socket.send(frame) }
                outbox.withLock { $0.isSending = false }
            } catch {
                // The reading thread reports the reason.
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
    /// Encodes a message of a kind that has no bounds to exceed.
    fileprivate static func frame(_ message: ControlMessage) -> [UInt8] {
        do throws(ProtocolError) {
            return try message.encode()
        } catch {
            // The callers pass only kinds of message that have no bounds.
            preconditionFailure("\(message.kind) is always inside its bounds")
        }
    }

    /// Receives one message.
    ///
    /// - Returns: nil if the peer has closed the connection between two messages.
    /// - Throws: a `SystemError` of the socket, a `ProtocolError`, or an error if the peer closed the connection in a
    ///   frame.
    package static func receive(from socket: borrowing StreamSocket) throws -> ControlMessage? {
        guard let header = try receive(ControlFrame.headerByteCount, from: socket, mayEnd: true) else { return nil }
        let (kind, length) = try ControlFrame.decodeHeader(header.span.bytes)
        let payload = try receive(length, from: socket, mayEnd: false) ?? []
        return try ControlMessage.decode(kind: kind, payload: payload.span.bytes)
    }

    /// Reads what has arrived of a connection's first frame, and no byte after that frame.
    ///
    /// - Parameters:
    ///   - socket: the connection, which is not waited for.
    ///   - bytes: the bytes of the frame that earlier calls have read.
    /// - Returns: nil until the whole frame has arrived.
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

    /// Receives exactly `count` bytes, whose bound the caller has checked.
    ///
    /// - Returns: nil if `mayEnd` and the peer has closed the connection before the first byte.
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

/// The error of a peer that closed the connection in the middle of a frame.
struct TruncatedFrame: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection in the middle of a frame" }
}

/// A token bucket that limits the rate of short messages.
///
/// Devices' states and page bitmaps arrive in many long messages, whereas decisions are few.
struct MessagePace {
    /// The size from which a message of device state is not counted, in bytes.
    private static let longBytes = 1 << 14
    /// The number of messages that may arrive at once.
    static let burst = 4096.0
    /// The number of messages that may arrive each second in the long run.
    static let perSecond = 1000.0

    private var room = burst
    private var last = MonotonicClock.now()

    /// Counts a message that arrived at the time `now`, in nanoseconds.
    ///
    /// - Returns: false if the message exceeds the limit.
    mutating func admits(_ message: ControlMessage, at now: UInt64) -> Bool {
        if case .deviceData(let bytes) = message, bytes.count >= MessagePace.longBytes { return true }
        room = min(MessagePace.burst, room + Double(now &- last) / 1e9 * MessagePace.perSecond) - 1
        last = now
        return room >= 0
    }
}

/// The error of a peer that sends more messages than the protocol can need.
struct MessageFlood: Error, CustomStringConvertible {
    let peer: String
    var description: String {
        "\(peer) sends more than \(Int(MessagePace.burst)) short messages at once, or \(Int(MessagePace.perSecond)) a second"
    }
}
