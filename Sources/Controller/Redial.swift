import LinuxSystem
import Synchronization

/// Tries to reach a peer again, more and more seldom, until it is there, it was tried long enough, or nobody wants it
/// any more.
final class Redial: Sendable {
    /// How long attempts go on, and at which intervals, also where one reaches somebody who is not the peer.
    struct Search: Sendable {
        private static let longestPause = 2.0

        fileprivate let deadline: UInt64
        /// Seconds until the next attempt.
        fileprivate var pause = 0.05

        /// - Parameter time: for how long the peer is looked for.
        init(for time: Duration) {
            let (seconds, attoseconds) = time.components
            deadline = MonotonicClock.now() + UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
        }

        /// An attempt was made.
        mutating func slowDown() {
            pause = min(Search.longestPause, pause * 2)
        }
    }

    private let flag: EventDescriptor
    private let search: Search

    init(_ search: Search) throws(SystemError) {
        flag = try EventDescriptor()
        self.search = search
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

    /// Blocks until somebody is reached or the attempt has ended.
    func run(_ address: SocketAddress) -> End {
        var search = search
        var reason = "somebody is there, and the migration does not go on with them"
        while MonotonicClock.now() < search.deadline {
            if flag.wait(seconds: search.pause) { return .givenUp(reason: "it is not wanted any more") }
            do throws(SystemError) {
                let socket = try StreamSocket(connectingTo: address, timeout: StreamSocket.shortTimeout)
                return .reached(Handover(socket))
            } catch {
                reason = "\(error)"
            }
            search.slowDown()
        }
        return .givenUp(reason: reason)
    }
}
