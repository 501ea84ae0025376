import Identity
import LinuxSystem
import PageProtocol
import Synchronization

/// A relay between source and destination that breaks or delays single connections on command.
final class Relay: Sendable {
    /// The connections of a migration, in the order in which the source makes them.
    enum Line: Int, Sendable, CaseIterable {
        case control, urgent, bulk
    }

    private final class Pair: Sendable {
        let source: StreamSocket
        let destination: StreamSocket
        init(_ source: consuming StreamSocket, _ destination: consuming StreamSocket) {
            self.source = source
            self.destination = destination
        }
        func cut() {
            source.shutdown()
            destination.shutdown()
        }
    }

    private let listener: Listener
    private let target: SocketAddress
    private let threads = ThreadGroup()
    private let pairs = Mutex<[Pair]>([])
    private let hasEnded = Atomic<Bool>(false)
    /// The kind of the destination's message at which the relay cuts the control connection instead of forwarding it.
    private let forbidden: FrameKind?
    /// The connection on which the relay drops everything that the source sends.
    private let lossy: Line?
    /// Whether the destination appears as an earlier release, without START_RESULT and its messages.
    private let older: Bool

    init(
        to target: SocketAddress,
        cuttingAt forbidden: FrameKind? = nil,
        losing lossy: Line? = nil,
        older: Bool = false
    ) throws {
        self.older = older
        listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        self.target = target
        self.forbidden = forbidden
        self.lossy = lossy
        try threads.run("relay") { [self] in
            while let source = try? listener.accept() { connect(source) }
        }
    }

    var address: SocketAddress { listener.address }

    /// Breaks one connection.
    func cut(_ line: Line) {
        let pair = pairs.withLock { $0.count > line.rawValue ? $0[line.rawValue] : nil }
        pair?.cut()
    }

    /// Breaks every connection.
    func cutAll() {
        pairs.withLock { $0 }.forEach { $0.cut() }
    }

    func end() {
        hasEnded.store(true, ordering: .sequentiallyConsistent)
        listener.shutdown()
        pairs.withLock { $0 }.forEach { $0.cut() }
        threads.join()
    }

    private func connect(_ source: consuming StreamSocket) {
        guard let destination = try? StreamSocket(connectingTo: target) else { return }
        let pair = Pair(source, destination)
        let number = pairs.withLock {
            $0.append(pair)
            return $0.count - 1
        }
        // Either the thread that ends the relay sees the pair, or this thread sees the end.
        if hasEnded.load(ordering: .sequentiallyConsistent) { return pair.cut() }
        // If the thread cannot be started, the connection closes, and the test fails.
        try? threads.run("relay-out") { [lossy] in
            if let lossy, number == lossy.rawValue {
                let opening = Join(lane: .bulk, migration: .random(), nonce: .zero).encode()
                Self.lose(from: pair.source, sparing: opening.count, to: pair.destination)
            } else {
                Self.pass(from: pair.source, to: pair.destination)
            }
            pair.cut()
        }
        try? threads.run("relay-back") { [forbidden, older] in
            if number == Line.control.rawValue, forbidden != nil || older {
                Self.passFrames(from: pair.destination, to: pair.source, until: forbidden, older: older)
            } else {
                Self.pass(from: pair.destination, to: pair.source)
            }
            pair.cut()
        }
    }

    private static func pass(from one: borrowing StreamSocket, to other: borrowing StreamSocket) {
        withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
            while let count = try? one.receive(into: buffer), count > 0 {
                let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                guard (try? other.send(bytes)) != nil else { return }
            }
        }
    }

    /// Forwards the first bytes, which name the connection, and drops everything after them until the end.
    private static func lose(from one: borrowing StreamSocket, sparing count: Int, to other: borrowing StreamSocket) {
        var first = [UInt8](repeating: 0, count: count)
        guard (try? first.withUnsafeMutableBytes({ try one.receive(exactly: $0) })) == count,
            (try? other.send(first)) != nil
        else { return }
        while let received = try? first.withUnsafeMutableBytes({ try one.receive(into: $0) }), received > 0 {}
    }

    private static func passFrames(
        from one: borrowing StreamSocket,
        to other: borrowing StreamSocket,
        until forbidden: FrameKind?,
        older: Bool
    ) {
        let unknown: [FrameKind] = older ? [.running, .startFailed, .startRequest, .cancelled] : []
        while true {
            var frame = [UInt8](repeating: 0, count: 8)
            guard (try? frame.withUnsafeMutableBytes { try one.receive(exactly: $0) }) == 8 else { return }
            let length = Int(frame[0]) | Int(frame[1]) << 8 | Int(frame[2]) << 16
            var payload = [UInt8](repeating: 0, count: length)
            guard (try? payload.withUnsafeMutableBytes { try one.receive(exactly: $0) }) == length else { return }
            // PONG 0 only shows each second that the peer is alive; the PONG for the devices has another number.
            let kind = UInt16(frame[4]) | UInt16(frame[5]) << 8
            if kind == forbidden?.rawValue, forbidden != .pong || payload.contains(where: { $0 != 0 }) { return }
            if unknown.contains(where: { $0.rawValue == kind }) { continue }
            if older, kind == FrameKind.hello.rawValue {
                payload.replaceSubrange(8..<16, with: repeatElement(0, count: 8))
            }
            guard (try? other.send(frame + payload)) != nil else { return }
        }
    }
}
