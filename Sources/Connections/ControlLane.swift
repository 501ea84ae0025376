public import LinuxSystem
public import PageProtocol
import Synchronization

/// The control connection: a thread that reads its messages, and one that writes what is put into it.
public final class ControlLane: Sendable {
    /// What the connection tells, in order, from a thread of its own.
    public enum Event: Sendable {
        /// What the peer says.
        case message(ControlMessage)
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

    init(_ socket: consuming StreamSocket, peerTimeout: Duration) throws(SystemError) {
        self.socket = socket
        self.peerTimeout = peerTimeout
        flag = try EventDescriptor()
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
        flag.raise()
    }

    func read(_ onEvent: (ControlLane.Event) -> Void) {
        do {
            while let message = try ControlLane.receive(from: socket) {
                heard.store(MonotonicClock.now(), ordering: .relaxed)
                switch message {
                case .ping(ControlLane.anybody): put(ControlLane.frame(.pong(ControlLane.anybody)))
                case .pong(ControlLane.anybody): break
                default: onEvent(.message(message))
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
                // A stopped process keeps its connections: the kernel's own keepalive does not see it.
                let (now, last) = (MonotonicClock.now(), heard.load(ordering: .relaxed))
                // Something may have come since.
                let silence = Duration.nanoseconds(Int64(now - min(now, last)))
                if silence > peerTimeout {
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

    /// Receives a connection's first frame.
    ///
    /// - Parameter deadline: when all of it must have come, in nanoseconds of ``MonotonicClock``.
    static func receiveOpening(from socket: borrowing StreamSocket, before deadline: UInt64) throws -> OpeningFrame {
        let header = try receive(ControlFrame.headerByteCount, from: socket, mayEnd: false, before: deadline) ?? []
        let (kind, length) = try OpeningFrame.decodeHeader(header.span.bytes)
        let payload = try receive(length, from: socket, mayEnd: false, before: deadline) ?? []
        return try OpeningFrame.decode(kind: kind, payload: payload.span.bytes)
    }

    /// Receives exactly `count` bytes, whose bound was checked; nil if the peer ended before the first and may.
    private static func receive(
        _ count: Int,
        from socket: borrowing StreamSocket,
        mayEnd: Bool,
        before deadline: UInt64? = nil
    ) throws -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = try bytes.withUnsafeMutableBytes { bytes in
            if let deadline { return try socket.receive(exactly: bytes, before: deadline) }
            return try socket.receive(exactly: bytes)
        }
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
