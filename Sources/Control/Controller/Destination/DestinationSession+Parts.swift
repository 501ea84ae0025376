import Connections
import Identity
import PageProtocol
import Switchover

/// The parts of a session's state.
extension DestinationSession {
    /// The link that stands.
    struct Link: Sendable {
        /// How far the source has got with its REGIONS.
        enum Regions: Sendable {
            case awaited
            /// The REGIONS wait until the memory of an earlier link is freed.
            case held(GuestAnnouncement)
            /// The memory is prepared for this source, or was before its link broke.
            case accepted
        }

        /// The number that tells the link's events from those of earlier links.
        let number: LinkNumber
        let control: ControlLink
        let nonce = Nonce.random()
        /// The lanes that have joined.
        var lanes: Lanes.Arriving
        var regions: Regions
        /// Whether the time is over after which another source may take this source's place.
        var isSlow = false
        /// The number of changes to the time limit for the source's device states; only the latest counts.
        var deviceLimits = 0
        /// Whether the source was told which pages have arrived here.
        var isWelcomed = false
        /// Whether the source was already told why its link ends.
        var isLastWordSent = false

        /// Whether the memory was prepared for this source.
        var isAccepted: Bool {
            if case .accepted = regions { return true }
            return false
        }

        /// Whether the source has not sent REGIONS.
        var awaitsRegions: Bool {
            if case .awaited = regions { return true }
            return false
        }
    }

    /// The links so far.
    struct Links: Sendable {
        /// The number of the newest link.
        var newest = LinkNumber(0)
        /// Why the last link was lost.
        var lastLoss: String?
        /// Whether the timer runs after which the source is given up.
        var isGivingSourceUp = false
    }

    /// The callers that wait for the session.
    struct Waiting {
        /// `cont` commands that wait for the start.
        var conts = Waiters<any Error>()
        /// Callers that wait until something has happened.
        var changes = Waiters<Never>()
    }

    /// What has become of the workload here.
    struct Course: Sendable {
        /// Why the workload has ended by itself; nil if it has not.
        var endReason: String?
        /// Whether the workload ended before its start was reported.
        var hasEndedInStart = false
        /// Why missing pages can never be placed here; nil if they can.
        var memoryLoss: String?
    }

    /// The listener: at first for any source, after `migrate-recover` for the source of this migration.
    struct Listener: Sendable {
        var acceptor: LaneAcceptor
        var isOpen = true
        /// Whether another session accepts sources from this listener.
        var isHandedOver = false
        /// Whether a client chose the address by `migrate-incoming`.
        var isCommanded = false
        /// A source that connected while the link of another source stood, and the number of that earlier link.
        ///
        /// The earlier link may be about to end.
        var held: (arrival: LaneAcceptor.Arrival, hello: Hello, link: LinkNumber)?
    }

    /// The session's place among the sessions of its agent.
    enum Standing: Sendable {
        case serves
        /// Another session is being made, which may fail; until then, no source is accepted.
        case makesWay
        /// Another session has replaced this one.
        case retired
    }

    /// The end of the migration.
    struct End: Sendable {
        /// The outcome to report: the reason of a failure or an inner nil; an outer nil if nothing is to be reported.
        var unreported: String??
        /// Whether everything that a failed migration has brought is freed.
        var isDiscarded = false
    }

    /// The exit of the agent.
    struct Exit: Sendable {
        /// Why nothing may start here any more.
        let reason: String
        /// What the exit waits for now.
        var wait: ExitWait?
        /// The waits that have a timer.
        var limited: Set<ExitWait> = []
        /// The number of waits so far.
        var waits = 0
    }
}
