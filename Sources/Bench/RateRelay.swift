import LinuxSystem

/// A link of limited rate: a thread that forwards the bytes of the bulk lane from the far end to this process.
///
/// The thread exits when either end is closed; dropping the value waits for that.
final class RateRelay: Sendable {
    /// The rate of a link of 100 Mbit/s, in bytes per second.
    static let slowRate = 12_500_000
    /// The bytes that are forwarded at once.
    private static let step = 16 << 10
    /// The nanoseconds by which a late step may be made up for.
    private static let burst: UInt64 = 5_000_000

    /// The lane behind the relay, for this process.
    let near: SharedSocket
    private let thread: JoinedThread

    /// Puts a relay between a lane of the far end and this process.
    ///
    /// - Parameters:
    ///   - lane: the lane, which only the relay uses from now on.
    ///   - bytesPerSecond: the rate of the relay.
    init(of lane: SharedSocket, to bytesPerSecond: Int) throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        near = SharedSocket(try StreamSocket(connectingTo: listener.address))
        guard let accepted = try listener.accept() else {
            throw BenchFailure("the relay of the bulk lane has no end")
        }
        let output = SharedSocket(accepted)
        thread = try JoinedThread(name: "relay", pace: .urgent) {
            RateRelay.forward(from: lane.stream, to: output.stream, bytesPerSecond)
        }
    }

    private static func forward(
        from far: borrowing StreamSocket,
        to near: borrowing StreamSocket,
        _ bytesPerSecond: Int
    ) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: RateRelay.step, alignment: 16)
        defer { buffer.deallocate() }
        let nanosecondsPerByte = 1e9 / Double(bytesPerSecond)
        var due = MonotonicClock.now()
        do throws(SystemError) {
            while case let received = try far.receive(into: buffer), received > 0 {
                try near.send(UnsafeRawBufferPointer(rebasing: buffer[..<received]))
                let now = MonotonicClock.now()
                due = max(due, now - RateRelay.burst) + UInt64(Double(received) * nanosecondsPerByte)
                if due > now { MonotonicClock.sleep(nanoseconds: due - now) }
            }
        } catch {
            // Both ends notice the error by the end of their connections.
        }
        far.shutdown()
        near.shutdown()
    }
}
