import LinuxSystem
import Synchronization

/// Tries to reach a peer again, more and more seldom, until it is there, it was tried long enough, or nobody wants it
/// any more.
final class Redial: Sendable {
    private static let firstPause = 0.05
    private static let longestPause = 2.0

    private let flag: EventDescriptor
    private let deadline: UInt64

    /// - Parameter time: how long it is tried.
    init(for time: Duration) throws(SystemError) {
        flag = try EventDescriptor()
        let (seconds, attoseconds) = time.components
        deadline = MonotonicClock.now() + UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }

    /// Ends the attempt.
    func cancel() {
        flag.raise()
    }

    /// Blocks until the peer is reached or the attempt has ended.
    func run(_ address: SocketAddress) -> Handover<StreamSocket>? {
        var pause = Redial.firstPause
        while MonotonicClock.now() < deadline {
            if flag.wait(seconds: pause) { return nil }
            // Why it is not there is told when the attempt has ended.
            if let socket = try? StreamSocket(connectingTo: address) { return Handover(socket) }
            pause = min(Redial.longestPause, pause * 2)
        }
        return nil
    }
}
