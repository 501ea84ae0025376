import Identity
import Switchover

/// Both machines, the messages between them, the operations of their drivers, and the facts outside of them.
///
/// A link breaks when either side notices the loss, at any time. Until the other side notices it too, that side may
/// still receive any part of the earlier messages, and may keep sending into the void. Each side therefore sees a
/// prefix of its peer's messages and then the loss, in every combination. The destination may accept a new link before
/// or after it has noticed the loss of the previous link.
struct World: Hashable {
    enum Link: Hashable { case none, up, lost }

    /// The state of a third host, on which the workload may run.
    enum Third: Hashable {
        case none
        /// RUN was sent to the third host, with the epoch of its sender.
        case granted(by: Side, epoch: UInt64)
        case runs
    }

    /// The setting of a walk.
    struct Setting: Hashable, CustomStringConvertible {
        var startsStopped = false
        var policy = StartRefusalPolicy.takeBack
        var usesLease = false
        var conts = 1
        var cancels = 1
        /// The number of links that can be made after the first.
        var relinks = 1
        /// Whether the operator reports that the destination is gone, if it is.
        var operatorSpeaks = true
        /// Whether the operator may report that the source is gone although it is not.
        var operatorErrs = false
        /// Whether the destination has the capability START_RESULT.
        var tellsStart = true
        /// The number of migrations to a third host and of takeovers for it.
        var thirds = 0
        /// Whether stops, starts, hooks and undos may take for ever.
        var hangs = false
        /// How often the store answers a source's request only after the source has timed out.
        var silences = 0
        /// The number of agents that are told to exit.
        var ends = 0
        /// Whether the switchover waits for `migrate-continue`.
        var pausesBeforeSwitchover = false
        /// Whether the source's workload is in a process that attaches to its agent, outlives it, and may hang up.
        var attaches = false
        /// Whether a workload may end by itself during its start.
        var diesStarting = false

        var description: String {
            [
                startsStopped ? "started by cont" : "started by RUN",
                "\(policy) after a refused start",
                usesLease ? "with a lease" : "without a lease",
                "\(conts) cont, \(cancels) cancel, \(relinks) more links",
                thirds > 0 ? "\(thirds) to a third host" : nil,
                hangs ? "operations that hang" : nil,
                silences > 0 ? "a store that answers late" : nil,
                operatorErrs ? "an operator who errs" : nil,
                ends > 0 ? "\(ends) told to exit" : nil,
                diesStarting ? "starts that die" : nil,
                attaches ? "a process that attaches" : nil,
                pausesBeforeSwitchover ? "a pause before the switchover" : nil,
            ].compactMap(\.self).joined(separator: ", ")
        }
    }

    // The machines and their drivers.
    var source: SourceMachine
    var destination: DestinationMachine
    var sourceOperations: Multiset<SourceOperation> = []
    var destinationOperations: Multiset<DestinationOperation> = []
    var sourceLink = Link.none
    var destinationLink = Link.none
    /// Whether both sides' links are the two ends of one link.
    var isJoined = false
    /// The messages on a new link that the destination has not accepted yet; nil if there is no such link.
    var dialed: [SourceMessage]?
    var toDestination: [SourceMessage] = []
    var toSource: [DestinationMessage] = []
    var isSourceAlive = true
    var isDestinationAlive = true

    // The facts, whatever the machines believe.
    var runsOnSource = true
    var runsOnDestination = false
    /// The side on which the workload has executed last, or may have; the state of every other side is stale.
    var newest = Side.source
    /// Whether the workload has executed at the destination, or may have.
    var hasCome = false
    /// Whether the workload has ended by itself.
    var hasDied = false
    var devicesLoaded = false
    var sourceHoldsLocks = true
    /// Whether hooks of the destination have run and are not all undone.
    var destinationHoldsHooks = false
    var resumeFailed = false
    /// Whether the source's process was told that another host may run the workload, and was not told to resume since.
    var hasDeparted = false
    /// Whether the source's process has hung up.
    var hasHungUp = false
    var allPagesSent = false
    var allPagesResident = false
    var store = Store()
    /// Records that may still reach the store although their writers no longer wait.
    var strays: Multiset<Store.Proposal> = []
    /// The epoch that the source knows it holds.
    var sourceEpoch: UInt64 = 1
    var third = Third.none
    /// Whether the source has begun a migration to the third host after it had taken its workload back.
    var sourceMovedOn = false

    // The messages that were sent and received.
    var runsSent = 0
    var heardPong = false
    /// Whether the last RUN will never start, by a promise, the lease, or a true report of the operator.
    var heardPromise = false
    var heardRunning = false
    /// The tokens for which the source holds a promise that they never start.
    var promised = SmallSet()
    var contWaits = false
    var cancelWaits = false
    /// Whether the source has stopped redialing the destination to report the take-back.
    var gaveUpRedial = false
    /// Whether the destination has stopped waiting for the source.
    var gaveSourceUp = false
    /// Whether the destination's agent was told to exit.
    var destinationLeaves = false
    /// Properties that an action of a side has broken.
    var misdeeds = SmallSet()

    // The commands that the operator may still give.
    var contsLeft: Int
    var cancelsLeft: Int
    var relinksLeft: Int
    var thirdsLeft: Int
    var silencesLeft: Int
    var endsLeft: Int
    var mayStart = true
    var retriesLeft = 1
    @Constant var setting: Setting
    @Constant var driver: Driver

    init(_ setting: Setting = Setting(), driver: Driver = Driver()) {
        source = SourceMachine(
            afterStartRefusal: setting.policy,
            usesLease: setting.usesLease,
            pausesBeforeSwitchover: setting.pausesBeforeSwitchover
        )
        destination = DestinationMachine(startsStopped: setting.startsStopped, usesLease: setting.usesLease)
        _setting = Constant(setting)
        _driver = Constant(driver)
        contsLeft = setting.conts
        cancelsLeft = setting.cancels
        relinksLeft = setting.relinks
        thirdsLeft = setting.thirds
        silencesLeft = setting.silences
        endsLeft = setting.ends
        _ = destination.migrateIncoming()
    }

    /// Whether the source has sent RUN and does not know that the destination will never start.
    var runIsOut: Bool { runsSent > 0 && !heardPromise }

    var runsOnThird: Bool { third == .runs }
    var newestOnDestination: Bool { newest == .destination }

    /// Whether the workload runs where its newest state is.
    var runsWhereItShould: Bool {
        switch newest {
        case .source: runsOnSource
        case .destination: runsOnDestination
        case .third: runsOnThird
        }
    }
}

/// A set of numbers below 64.
struct SmallSet: Hashable {
    private var bits: UInt64 = 0

    mutating func insert(_ number: UInt64) { bits |= 1 << number }
    mutating func insert(_ property: Property) { insert(property.number) }
    func contains(_ number: UInt64) -> Bool { number < 64 && bits & 1 << number != 0 }
    func contains(_ property: Property) -> Bool { contains(property.number) }
}

/// A value that is the same in every world of a walk and does not count in comparisons.
@propertyWrapper
struct Constant<Value: Sendable>: Hashable, Sendable {
    let wrappedValue: Value

    init(_ value: Value) { wrappedValue = value }

    static func == (one: Constant, other: Constant) -> Bool { true }
    func hash(into hasher: inout Hasher) {}
}
