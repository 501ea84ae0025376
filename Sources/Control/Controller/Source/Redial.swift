import LinuxSystem
import Synchronization

/// One attempt to reach a peer, at growing intervals until it answers or the attempt is ended.
final class Redial: Sendable {
    /// The intervals between the attempts of one search for a peer.
    ///
    /// A search outlives one ``Redial``: it continues if the program that answered is not the peer.
    struct Search: Sendable {
        private static let longestPause = 2.0

        /// The number of the search, which its timer names.
        let number: Int
        /// Whether the time of the search is over.
        var isOver = false
        /// Seconds before the next attempt.
        fileprivate var pause = 0.05

        /// Begins a search.
        init(_ number: Int) {
            self.number = number
        }

        /// Doubles the pause before the next attempt, up to 2 s.
        mutating func slowDown() {
            pause = min(Search.longestPause, pause * 2)
        }
    }

    private let flag: EventDescriptor
    private let search: Search
    private let noAnswer: String

    /// Makes an attempt that ``run(_:)`` carries out.
    ///
    /// - Parameters:
    ///   - search: the intervals.
    ///   - noAnswer: what is known of a peer whose address can be reached.
    init(_ search: Search, noAnswer: String) throws(SystemError) {
        flag = try EventDescriptor()
        self.search = search
        self.noAnswer = noAnswer
    }

    /// Ends ``run(_:)`` early.
    func end() {
        flag.raise()
    }

    /// The outcome of ``run(_:)``.
    enum End: Sendable {
        case reached(Handover<StreamSocket>)
        /// ``Redial/end()`` was called; the reason is why the last attempt failed.
        case givenUp(reason: String)
    }

    /// Blocks until a program answers at the address, or ``end()`` is called.
    ///
    /// - Parameters:
    ///   - address: the address to dial.
    ///   - onTry: called before each attempt.
    func run(_ address: SocketAddress, onTry: () -> Void) -> End {
        var search = search
        var reason = noAnswer
        while !flag.wait(seconds: search.pause) {
            onTry()
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
