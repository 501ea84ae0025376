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

    /// How an attempt ends.
    enum End: Sendable {
        case reached(Handover<StreamSocket>)
        /// It was tried long enough, or is not wanted any more.
        case givenUp(reason: String)
    }

    /// Blocks until the peer is reached or the attempt has ended.
    func run(_ address: SocketAddress) -> End {
        var pause = Redial.firstPause
        var reason = "there was no time to try"
        while MonotonicClock.now() < deadline {
            if flag.wait(seconds: pause) { return .givenUp(reason: "it is not wanted any more") }
            do throws(SystemError) {
                let socket = try StreamSocket(connectingTo: address, timeout: StreamSocket.shortTimeout)
                return .reached(Handover(socket))
            } catch {
                reason = "\(error)"
            }
            pause = min(Redial.longestPause, pause * 2)
        }
        return .givenUp(reason: reason)
    }
}
