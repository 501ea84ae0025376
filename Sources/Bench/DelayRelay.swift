import LinuxSystem
import Synchronization

/// A relay on this host that makes each connection through it as slow as one between distant hosts.
///
/// Bytes arrive after a delay, and nothing is lost. Each direction of a connection holds at most a window of bytes that
/// have left and are not acknowledged, as TCP does: an acknowledgement comes after twice the delay.
final class DelayRelay: Sendable {
    /// The window of TCP with the kernel's usual limit of a send buffer (`net.ipv4.tcp_wmem`).
    static let window = 4 << 20
    /// The most bytes that are received at once.
    private static let piece = 128 << 10

    /// The two connections of which the relay makes one.
    private final class Pair: Sendable {
        let near: StreamSocket
        let far: StreamSocket

        init(near: consuming StreamSocket, far: consuming StreamSocket) {
            self.near = near
            self.far = far
        }

        func shutdown() {
            near.shutdown()
            far.shutdown()
        }
    }

    private let listener: Listener
    private let target: SocketAddress
    private let delay: UInt64
    private let threads = ThreadGroup()
    /// The connections so far; nil once the relay has ended.
    private let pairs = Mutex<[Pair]?>([])

    /// Relays connections to an address.
    ///
    /// - Parameter delay: nanoseconds that a byte takes in each direction.
    init(to target: SocketAddress, delay: UInt64) throws(SystemError) {
        self.target = target
        self.delay = delay
        listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        try threads.run("relay") { [self] in
            while let near = try? listener.accept() {
                // A connection that cannot be relayed closes, and its round fails.
                try? connect(near)
            }
        }
    }

    /// The address at which connections to the target are made.
    var address: SocketAddress { listener.address }

    /// Ends all connections, and waits for the threads.
    func end() {
        listener.shutdown()
        pairs.withLock { $0.take() }?.forEach { $0.shutdown() }
        threads.join()
    }

    private func connect(_ near: consuming StreamSocket) throws(SystemError) {
        let pair = Pair(near: near, far: try StreamSocket(connectingTo: target))
        let isOpen = pairs.withLock { pairs in
            pairs?.append(pair)
            return pairs != nil
        }
        guard isOpen else { return pair.shutdown() }
        for isToFar in [true, false] {
            try threads.run("relay") { [delay] in
                var direction = Direction(delay: delay)
                // Either end may hang up, as both do after each round.
                try? isToFar
                    ? direction.run(from: pair.near, to: pair.far) : direction.run(from: pair.far, to: pair.near)
                pair.shutdown()
            }
        }
    }

    /// The bytes on their way in one direction.
    private struct Direction: ~Copyable {
        private let delay: UInt64
        private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: window, alignment: 4096)
        /// The bytes of the connection that were received, that have arrived, and that were acknowledged.
        private var (received, arrived, acknowledged) = (0, 0, 0)
        /// The pieces that are not acknowledged, and how many of them have arrived: when a piece was received, and the
        /// bytes received by then.
        private var pieces: [(time: UInt64, end: Int)] = []
        private var arrivedPieces = 0

        init(delay: UInt64) {
            self.delay = delay
        }

        deinit {
            buffer.deallocate()
        }

        mutating func run(from one: borrowing StreamSocket, to other: borrowing StreamSocket) throws {
            while true {
                try advance(to: other)
                let next = nextMoment
                let room = DelayRelay.window - (received - acknowledged)
                guard room > 0 else {
                    let now = MonotonicClock.now()
                    if next > now { MonotonicClock.sleep(nanoseconds: next - now) }
                    continue
                }
                guard try one.waitToReceive(before: next) else { continue }
                let start = received % DelayRelay.window
                let count = min(room, DelayRelay.window - start, DelayRelay.piece)
                let space = UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + count])
                guard let bytes = try one.receiveNow(into: space) else { continue }
                guard bytes > 0 else { return }
                received += bytes
                pieces.append((MonotonicClock.now(), received))
            }
        }

        /// When the next piece arrives or is acknowledged.
        private var nextMoment: UInt64 {
            let arrival = arrivedPieces < pieces.count ? pieces[arrivedPieces].time + delay : .max
            let acknowledgement = arrivedPieces > 0 ? pieces[0].time + 2 * delay : .max
            return min(arrival, acknowledgement)
        }

        /// Delivers the pieces whose delay is over, and frees those that were acknowledged.
        private mutating func advance(to other: borrowing StreamSocket) throws {
            let now = MonotonicClock.now()
            while arrivedPieces < pieces.count, pieces[arrivedPieces].time + delay <= now {
                let start = arrived % DelayRelay.window
                let count = pieces[arrivedPieces].end - arrived
                try other.send(UnsafeRawBufferPointer(rebasing: buffer[start..<start + count]))
                arrived += count
                arrivedPieces += 1
            }
            let free = pieces[..<arrivedPieces].count { $0.time + 2 * delay <= now }
            guard free > 0 else { return }
            acknowledged = pieces[free - 1].end
            pieces.removeFirst(free)
            arrivedPieces -= free
        }
    }
}
