import LinuxSystem
import PageProtocol
import Synchronization

/// What the threads of a control connection share.
///
/// No thread waits for the peer, except the one that calls ``finish()``.
final class ControlConnection: ServedConnection {
    /// The limit on queued frames, larger than the number of frames of all devices' states.
    ///
    /// A peer that makes us answer but does not read reaches this limit, and the connection is closed.
    private static let outboxLimit = 4096
    /// The limit on messages that wait to be handled, each of at most 1 MiB.
    ///
    /// At the limit, the reading thread stops receiving.
    private static let inboxLimit = 16
    /// Messages that are read or sent in a row before the reading thread turns to other connections.
    private static let turn = 64

    private struct Outbox {
        var frames: [[UInt8]] = []
        /// Bytes of the first frame that were sent.
        var sent = 0
        /// Whether the reading thread sends the frames once the socket has room.
        var waitsForRoom = false
        /// Whether ``finish()`` sends the rest, or the connection is broken; later frames are dropped.
        var isClosed = false
    }

    private struct Reader {
        var frame = PartialFrame()
        var pace = MessagePace()
        /// The place in the inbox for the next message.
        var slot: Inbox.Slot?
        var hasEnded = false
    }

    let socket: SharedSocket
    private let threads: ControlThreads
    private let peerTimeout: Duration
    private let onEvent: @Sendable (ControlLane.Event) -> Void
    /// The time at which the peer's latest message arrived.
    private let heard = Atomic<UInt64>(MonotonicClock.now())
    private let isSilent = Atomic<Bool>(false)
    private let outbox = Mutex(Outbox())
    /// Held while messages are read and reported.
    private let reader = Mutex(Reader())
    /// What the connection waits for in ``ControlThreads/reading``.
    private let wait = Mutex<ConnectionThreads.Wait>(.bytes)
    private let inbox = Inbox(limit: inboxLimit)

    init(
        _ socket: SharedSocket,
        _ threads: ControlThreads,
        peerTimeout: Duration,
        onEvent: @escaping @Sendable (ControlLane.Event) -> Void
    ) {
        self.socket = socket
        self.threads = threads
        self.peerTimeout = peerTimeout
        self.onEvent = onEvent
        inbox.onRoom { [weak self] in
            // Stored before the inbox counts as having room: a peer whose messages waited here was not silent.
            self?.heard.store(MonotonicClock.now(), ordering: .releasing)
            self?.wait(for: .bytes)
        }
    }

    // MARK: Sending

    /// Sends a frame, or queues it until the socket has room.
    func put(_ frame: [UInt8]) {
        let (isFull, isStuck) = outbox.withLock { outbox in
            guard !outbox.isClosed else { return (false, false) }
            outbox.frames.append(frame)
            if !outbox.waitsForRoom { sendQueued(&outbox) }
            return (outbox.frames.count > Self.outboxLimit, outbox.waitsForRoom && outbox.frames.count == 1)
        }
        if isFull { socket.stream.shutdown() }
        if isStuck { wait(for: .room) }
    }

    var isDrained: Bool {
        guard outbox.withLock({ $0.frames.isEmpty }) else { return false }
        return socket.stream.unconfirmedBytes ?? 0 == 0
    }

    /// Sends as many queued frames as the socket has room for, but few enough that others get their turn.
    private func sendQueued() {
        let isStuck = outbox.withLock { outbox in
            sendQueued(&outbox)
            return outbox.waitsForRoom
        }
        if isStuck { wait(for: .room) }
    }

    private func sendQueued(_ outbox: inout Outbox) {
        guard !outbox.isClosed else { return }
        do throws(SystemError) {
            let count = try send(outbox.frames.prefix(Self.turn), &outbox.sent)
            outbox.frames.removeFirst(count)
        } catch {
            // The reading thread reports the reason.
            outbox.isClosed = true
            outbox.frames = []
            socket.stream.shutdown()
        }
        outbox.waitsForRoom = !outbox.frames.isEmpty
    }

    /// Sends frames until the socket has no room.
    ///
    /// - Parameters:
    ///   - frames: the frames.
    ///   - sent: bytes of the first frame that were sent before; then bytes of the first frame that is left.
    /// - Returns: the number of frames that were sent completely.
    private func send(_ frames: ArraySlice<[UInt8]>, _ sent: inout Int) throws(SystemError) -> Int {
        for (index, frame) in frames.enumerated() {
            while sent < frame.count {
                let more = try frame.span.bytes.withUnsafeBytes { [sent] (bytes) throws(SystemError) in
                    try socket.stream.sendNow(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
                }
                guard more > 0 else { return index }
                sent += more
            }
            sent = 0
        }
        return frames.count
    }

    /// Reports a peer that has been silent for too long, and sends PING.
    func checkPulse() {
        // Read `isFull` first: after a wait, `heard` is stored before `isFull` becomes false.
        let isFull = inbox.isFull
        // A stopped process keeps its connections, so the kernel's keepalive does not notice it.
        let silence = MonotonicClock.time(since: heard.load(ordering: .acquiring))
        // A peer whose messages wait in our inbox is not silent.
        if silence > peerTimeout, !isFull, !isSilent.exchange(true, ordering: .relaxed) {
            onEvent(.silent(reason: "\(socket.stream.peer) has been silent for \(silence.text)"))
        }
        put(ControlLane.frame(.ping(ControlLane.anybody)))
    }

    /// Sends all queued frames, waiting for the peer if need be, and closes the connection.
    ///
    /// The loss of the connection is the last event, for whoever waits for the end.
    func finish() {
        threads.remove(self)
        let (frames, sent) = outbox.withLock { outbox in
            defer { (outbox.frames, outbox.isClosed, outbox.waitsForRoom) = ([], true, false) }
            return (outbox.frames, outbox.sent)
        }
        do throws(SystemError) {
            for (index, frame) in frames.enumerated() {
                try socket.stream.send(index == 0 ? Array(frame[sent...]) : frame)
            }
        } catch {
            // The peer is gone, and needs no more frames.
        }
        // Before the shutdown, which a reading thread would take for one of the peer.
        threads.reading.remove(self)
        reader.withLock { reader in
            if !reader.hasEnded { end(&reader, because: "the connection to \(socket.stream.peer) was closed") }
        }
        socket.stream.shutdown()
    }

    // MARK: Receiving

    /// Waits for one thing more.
    private func wait(for more: ConnectionThreads.Wait) {
        wait.withLock { wait in
            wait.insert(more)
            threads.reading.wait(for: wait, on: self)
        }
    }

    func serve(mayWait: Bool) {
        // The kernel reports only once what the connection waits for, and does not say here which of it has come.
        wait.withLock { $0 = [] }
        sendQueued()
        let goesOn = reader.withLock { reader in
            guard !reader.hasEnded else { return false }
            do {
                return try read(&reader)
            } catch {
                // The socket stays open, so that the reason can still be sent to the peer.
                end(&reader, because: "\(error)")
                return false
            }
        }
        if goesOn { wait(for: .bytes) }
    }

    /// Reads and reports messages that have arrived.
    ///
    /// - Returns: whether to wait for more bytes; false while the inbox is full, and after the end.
    private func read(_ reader: inout Reader) throws -> Bool {
        for _ in 0..<Self.turn {
            // While the inbox is full, the peer's next messages stay unread.
            if reader.slot == nil { reader.slot = inbox.enter() }
            guard let slot = reader.slot else { return false }
            switch try reader.frame.receive(from: socket.stream) {
            case .incomplete: return true
            case .closed:
                end(&reader, because: "\(socket.stream.peer) closed the connection")
                return false
            case .message(let message):
                let now = MonotonicClock.now()
                heard.store(now, ordering: .relaxed)
                guard reader.pace.admits(message, at: now) else { throw MessageFlood(peer: socket.stream.peer) }
                switch message {
                case .ping(ControlLane.anybody): put(ControlLane.frame(.pong(ControlLane.anybody)))
                case .pong(ControlLane.anybody): break
                default:
                    reader.slot = nil
                    onEvent(.message(message, slot))
                }
            }
        }
        return true
    }

    private func end(_ reader: inout Reader, because reason: String) {
        reader.hasEnded = true
        reader.slot = nil
        onEvent(.lost(reason: reason))
    }
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
