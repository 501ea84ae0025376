import Switchover

/// Both machines, what is on its way between them, what their drivers are doing, and what is true outside of them.
///
/// A link that breaks is the choice of either side to notice it, at any time. Until the other side has noticed as well
/// it may still receive any part of what was sent before, and may go on sending into the void: each side sees a prefix
/// of what its peer sent, then the loss, in every combination. A link that is made anew may be accepted before or after
/// the destination has noticed the loss of the one before.
struct World: Hashable {
    enum Link: Hashable { case none, up, lost }

    /// A third host, on which the workload may come to run.
    enum Third: Hashable {
        case none
        /// RUN was sent to it, with the epoch that its sender holds.
        case granted(by: Side, epoch: UInt64)
        case runs
    }

    /// What is to be walked.
    struct Setting: Hashable, CustomStringConvertible {
        var startsStopped = false
        var policy = StartRefusalPolicy.takeBack
        var usesLease = false
        var conts = 1
        var cancels = 1
        /// Links that can be made after the first.
        var relinks = 1
        /// Whether an operator who knows it says that the destination is gone.
        var operatorSpeaks = true
        /// Whether the destination has the capability START_RESULT.
        var tellsStart = true
        /// Migrations to a third host, and takings over of the lease for it.
        var thirds = 0
        /// Whether stops, starts, hooks and their undoing may take for ever.
        var hangs = false
        /// How often the store keeps a source's question to itself, and answers it when nobody waits any more.
        var silences = 0
        /// Agents that are told to end.
        var ends = 0
        /// Whether a workload may end by itself in the midst of its start.
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
                ends > 0 ? "\(ends) told to end" : nil,
                diesStarting ? "starts that die" : nil,
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
    /// Both sides' links are the two ends of one.
    var isJoined = false
    /// What was sent over a new link that the destination has not accepted yet.
    var dialed: [SourceMessage]?
    var toDestination: [SourceMessage] = []
    var toSource: [DestinationMessage] = []
    var isSourceAlive = true
    var isDestinationAlive = true

    // What is so, whatever the machines believe.
    var runsOnSource = true
    var runsOnDestination = false
    /// Where the workload has executed last, or may have: every other side's state is old.
    var newest = Side.source
    /// It has executed on the destination, or may have.
    var hasCome = false
    /// The workload has ended by itself.
    var hasDied = false
    var devicesLoaded = false
    var sourceHoldsLocks = true
    /// From the first hook on until everything is undone.
    var destinationHoldsHooks = false
    var resumeFailed = false
    var allPagesSent = false
    var allPagesResident = false
    var store = Store()
    /// Records that were on their way when nobody waited for them any more.
    var strays: Multiset<Store.Proposal> = []
    /// The epoch that the source knows to hold.
    var sourceEpoch: UInt64 = 1
    var third = Third.none
    /// The source has begun the migration to the third host, after it had its workload back.
    var sourceMovedOn = false

    // What was said.
    var runsSent = 0
    var heardPong = false
    /// The RUN that was sent last never starts: by a promise, the lease, or a word that is true.
    var heardPromise = false
    var heardRunning = false
    /// The tokens of which the source was promised that they never start.
    var promised = SmallSet()
    var contWaits = false
    var cancelWaits = false
    /// The source has given up to tell the destination that it took the workload back.
    var gaveUpRedial = false
    /// The destination has given up to hear from the source again.
    var gaveSourceUp = false
    /// The destination's agent is told to end.
    var destinationLeaves = false
    /// Properties that an action of a side has broken.
    var misdeeds = SmallSet()

    // What the operator may still do.
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
        source = SourceMachine(afterStartRefusal: setting.policy, usesLease: setting.usesLease)
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

    /// The source has sent RUN and does not know that it will not start.
    var runIsOut: Bool { runsSent > 0 && !heardPromise }

    var runsOnThird: Bool { third == .runs }
    var newestOnDestination: Bool { newest == .destination }

    /// The workload runs where its newest state is.
    var runsWhereItShould: Bool {
        switch newest {
        case .source: runsOnSource
        case .destination: runsOnDestination
        case .third: runsOnThird
        }
    }
}

/// Numbers below 64.
struct SmallSet: Hashable {
    private var bits: UInt64 = 0

    mutating func insert(_ number: UInt64) { bits |= 1 << number }
    mutating func insert(_ property: Property) { insert(property.number) }
    func contains(_ number: UInt64) -> Bool { number < 64 && bits & 1 << number != 0 }
    func contains(_ property: Property) -> Bool { contains(property.number) }
}

/// What is the same in every world of a walk, and tells no two apart.
@propertyWrapper
struct Constant<Value: Sendable>: Hashable, Sendable {
    let wrappedValue: Value

    init(_ value: Value) { wrappedValue = value }

    static func == (one: Constant, other: Constant) -> Bool { true }
    func hash(into hasher: inout Hasher) {}
}
