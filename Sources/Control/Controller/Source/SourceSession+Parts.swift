import Connections
import Guest
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
        /// The most bulk lanes that this side uses.
        let pushLanes: Int
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

    /// The callers that wait for the session.
    struct Waiting {
        /// Commands that wait until a cancel has succeeded or failed.
        var cancels = Waiters<any Error>()
        /// Commands that wait until the workload runs here again, or cannot.
        var resumes = Waiters<any Error>()
        /// Callers that wait until something has happened.
        var changes = Waiters<Never>()
    }

    /// The device states on their way to the destination.
    struct DeviceStates: Sendable {
        /// The states that are sent while the workload runs.
        let ahead = StatesAhead()
        /// The states that were saved after the stop, until they are sent.
        var saved: [DeviceSet.Saved] = []
    }

    /// What has become of the workload here.
    struct Course: Sendable {
        /// Whether the workload ran, and was stopped for this migration.
        var hasStopped = false
        /// Whether the memory was freed, or is being freed, since the workload has moved away.
        var hasLetMemoryGo = false
        /// Why the workload has ended by itself, and whether that was told; nil if it has not ended.
        var end: (reason: String, isTold: Bool)?
    }

    /// The operator's words that the destination is gone.
    struct GoneWords: Sendable {
        /// The number of words so far that had to wait.
        var made = 0
        /// The number of the last word whose time is over.
        var overdue = 0
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
