import LinuxSystem
import PageProtocol
import Synchronization

/// A relay between a source and a destination that flips one bit of one pushed page.
final class FlippingRelay: Sendable {
    private let listener: Listener
    private let target: SocketAddress
    private let threads = ThreadGroup()
    private let sockets = Mutex<[Pair]>([])
    private let hasFlipped = Atomic<Bool>(false)

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

    /// Listens on loopback and forwards to `target`.
    init(to target: SocketAddress) throws {
        self.target = target
        listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        try threads.run("relay-accept") { [self] in
            while let near = try? listener.accept(), let far = try? StreamSocket(connectingTo: target) {
                let pair = Pair(near: near, far: far)
                sockets.withLock { $0.append(pair) }
                try? threads.run("relay-out") { [self] in pass(pair, toFar: true) }
                try? threads.run("relay-back") { [self] in pass(pair, toFar: false) }
            }
        }
    }

    /// The address to which the source must connect.
    var address: SocketAddress { listener.address }

    /// Whether the bit has been flipped.
    var flipped: Bool { hasFlipped.load(ordering: .acquiring) }

    /// Closes all connections.
    func stop() {
        listener.shutdown()
        sockets.withLock { $0.forEach { $0.shutdown() } }
        threads.join()
    }

    /// Forwards frame by frame; control and page frames both begin with their length and kind.
    private func pass(_ pair: Pair, toFar: Bool) {
        defer { pair.shutdown() }
        var header = [UInt8](repeating: 0, count: Wire.headerByteCount)
        while let received = try? header.withUnsafeMutableBytes({ try receive(pair, toFar, $0) }),
            received == header.count
        {
            let (length, kind) = header.withUnsafeBytes {
                (Int(UInt32(littleEndian: $0.load(as: UInt32.self))), $0.load(fromByteOffset: 4, as: UInt16.self))
            }
            var payload = [UInt8](repeating: 0, count: length)
            guard (try? payload.withUnsafeMutableBytes { try receive(pair, toFar, $0) }) == length else { return }
            if kind == FrameKind.pages.rawValue, !hasFlipped.exchange(true, ordering: .acquiringAndReleasing) {
                payload[16 + 2000] ^= 1
            }
            do {
                try send(pair, toFar, header + payload)
            } catch {
                return  // One end has closed; the shutdown closes the other.
            }
        }
    }

    private func receive(_ pair: Pair, _ toFar: Bool, _ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        toFar ? try pair.near.receive(exactly: buffer) : try pair.far.receive(exactly: buffer)
    }

    private func send(_ pair: Pair, _ toFar: Bool, _ bytes: [UInt8]) throws {
        if toFar { try pair.far.send(bytes) } else { try pair.near.send(bytes) }
    }
}
