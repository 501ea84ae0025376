import Connections
import Identity
import PageProtocol

/// The parts of a session's state.
extension SourceSession {
    /// The parts that must arrive before a rejoining link can serve.
    struct Rejoining: Sendable {
        var received: ReceivedMap
        var lanes: Lanes?
        var isAsked = false
    }

    /// The link that stands.
    struct Link: Sendable {
        let control: ControlLink
        /// The progress of a rejoining link; nil for another one, and once the link serves pages.
        var rejoining: Rejoining?
    }

    /// The source's part in the run lease.
    struct LeaseShare: Sendable {
        /// The epoch of the newest record that the source knows to be its own; 0 without a lease.
        var epoch: UInt64
        /// The value of `epoch` when the migration began.
        let firstEpoch: UInt64
        /// Whether a timer runs after which the lease is tried again.
        var isToBeAsked = false
    }

    /// The search for a destination to which no link stands.
    struct Redialing: Sendable {
        /// The attempt that is under way without an operator's command.
        var attempt: Redial?
        /// The search that the attempt belongs to; nil once a link has proved stable.
        var search: Redial.Search?
        /// The number of searches so far.
        var searches = 0
        /// Whether only `recover` makes a new link: after `migrate-pause`, a refusal, lost memory, or redialing in vain.
        var holdsStill = false
        /// Whether a link has ended because memory of the workload could not be read.
        var hasLostMemory = false

        /// The silence that ended the last link, as a reason; nil if that link ended otherwise.
        var silence: String?

        /// What is known of a destination at whose address something answers.
        ///
        /// A stopped process still accepts connections, by its kernel.
        var noAnswer: String {
            silence.map { "\($0); check if its process is stopped" }
                ?? "something answers at that address, but it is not this migration's destination"
        }

        /// Ends the attempt and the search.
        mutating func reset() {
            attempt?.end()
            (attempt, search) = (nil, nil)
        }
    }

    /// How far the agent's exit has got.
    enum Leaving: Sendable {
        case no
        case asked
        /// The destination only needs to hear that the workload was taken back.
        ///
        /// The source then redials for `leaveTime` instead of `recoveryTime`, and waits for the confirmation for
        /// `wordTime`.
        case hurries
    }
}
