import Switchover

/// Both machines, what is on its way between them, what their drivers are doing, and what is true outside of them.
///
/// A link that breaks is the choice of either side to notice it, at any time. Until the other side has noticed as well
/// it may still receive any part of what was sent before, and may go on sending into the void: each side sees a prefix
/// of what its peer sent, then the loss, in every combination. A link that is made anew may be accepted before or after
/// the destination has noticed the loss of the one before.
struct World: Hashable {
    enum Link: Hashable { case none, up, lost }

    /// The newest record of the run lease.
    struct Lease: Hashable {
        enum Owner: Hashable { case source, destination }
        var epoch: UInt64 = 1
        var owner = Owner.source
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

        var description: String {
            [
                startsStopped ? "started by cont" : "started by RUN",
                "\(policy) after a refused start",
                usesLease ? "with a lease" : "without a lease",
                "\(conts) cont, \(cancels) cancel, \(relinks) more links",
            ].joined(separator: ", ")
        }
    }

    // The machines and their drivers.
    var source: SourceMachine
    var destination: DestinationMachine
    var sourceOperations: Set<SourceOperation> = []
    var destinationOperations: Set<DestinationOperation> = []
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
    /// The workload has executed on the destination, or may have: the source's state is old.
    var newestOnDestination = false
    var devicesLoaded = false
    var sourceHoldsLocks = true
    /// From the first hook on until everything is undone.
    var destinationHoldsHooks = false
    var resumeFailed = false
    var allPagesSent = false
    var allPagesResident = false
    var lease = Lease()
    /// The epoch that the source knows to hold.
    var sourceEpoch: UInt64 = 1

    // What was said.
    var runsSent = 0
    var heardPong = false
    /// The RUN that was sent last never starts: by a promise, the lease, or a word that is true.
    var heardPromise = false
    var heardRunning = false
    var contWaits = false
    var cancelWaits = false
    /// The source has given up to tell the destination that it took the workload back.
    var gaveUpRedial = false
    /// Properties that an action of a side has broken.
    var misdeeds: Set<Property> = []

    // What the operator may still do.
    var contsLeft: Int
    var cancelsLeft: Int
    var relinksLeft: Int
    var mayStart = true
    var retriesLeft = 1
    let setting: Setting

    init(_ setting: Setting = Setting()) {
        source = SourceMachine(afterStartRefusal: setting.policy, usesLease: setting.usesLease)
        destination = DestinationMachine(startsStopped: setting.startsStopped, usesLease: setting.usesLease)
        self.setting = setting
        contsLeft = setting.conts
        cancelsLeft = setting.cancels
        relinksLeft = setting.relinks
        _ = destination.migrateIncoming()
    }

    /// The source has sent RUN and does not know that it will not start.
    var runIsOut: Bool { runsSent > 0 && !heardPromise }

    /// The workload runs where its newest state is.
    var runsWhereItShould: Bool { newestOnDestination ? runsOnDestination : runsOnSource }

    // MARK: What can happen next

    /// Every step that can be taken.
    ///
    /// `isFault` says that nothing makes it happen: the world may also stay without it.
    func steps() -> [(step: Step, isFault: Bool)] {
        var steps: [(step: Step, isFault: Bool)] = []
        if isSourceAlive { addSourceSteps(&steps) }
        if isDestinationAlive { addDestinationSteps(&steps) }
        return steps
    }

    private func addSourceSteps(_ steps: inout [(step: Step, isFault: Bool)]) {
        addOperatorSteps(&steps)
        for operation in sourceOperations { addEnds(of: operation, &steps) }
        if let message = toSource.first, sourceLink == .up { steps.append((.source(.received(message)), false)) }
        if sourceLink == .up {
            let mustNotice = toSource.isEmpty && (!isJoined && dialed == nil || !isDestinationAlive)
            steps.append((.source(.linkLost), !mustNotice))
            if isJoined, !allPagesSent, source.state == .postcopyDevice || source.state == .postcopyActive {
                steps.append((.source(.allPagesSent), false))
            }
        }
        steps.append((.sourceDies, true))
    }

    private func addOperatorSteps(_ steps: inout [(step: Step, isFault: Bool)]) {
        if source.state == .none { steps.append((.source(.migrate), false)) }
        if mayStart, source.state == .setup || source.state == .active {
            steps.append((.source(.startPostcopy), false))
        }
        if resumeFailed, retriesLeft > 0, !sourceOperations.contains(.resume) {
            steps.append((.source(.retryResume), false))
        }
        // Nobody has to cancel, but somebody who waits may.
        if cancelsLeft > 0, source.state != .none, !cancelWaits { steps.append((.source(.cancel), true)) }
        guard source.state == .postcopyPaused, !sourceOperations.contains(where: \.isDeciding) else { return }
        if relinksLeft > 0, isDestinationAlive { steps.append((.source(.recover), false)) }
        let isGone = !isDestinationAlive || destination.state == .failed || destination.state == .cancelled
        if setting.usesLease, isGone, !newestOnDestination { steps.append((.source(.cancel), false)) }
        if setting.operatorSpeaks, isGone, newestOnDestination || !setting.usesLease {
            steps.append((.source(.destinationIsGone(hasRun: newestOnDestination)), false))
        }
    }

    private func addEnds(of operation: SourceOperation, _ steps: inout [(step: Step, isFault: Bool)]) {
        func add(_ outcome: Outcome, isFault: Bool = false) {
            steps.append((.source(.ended(operation, outcome)), isFault))
        }
        switch operation {
        case .connect, .redial:
            let isHopeless = !isDestinationAlive || source.hasLinkedBefore && relinksLeft == 0
            if !isHopeless { add(.success) }
            add(.failure, isFault: !isHopeless)
        case .proceed, .resync, .regainLease: add(.success)
        case .stop, .save, .releaseLocks:
            add(.success)
            add(.failure, isFault: true)
        case .resume:
            add(.success)
            // One that could not be stopped runs on, and holds what it needs.
            if !runsOnSource { add(.failure, isFault: true) }
        case .seizeLease:
            steps.append((.source(.storeDecides), false))
            add(.unreachable, isFault: true)
        case .seizeDecided(let isWon): add(isWon ? .success : .failure)
        }
    }

    private func addDestinationSteps(_ steps: inout [(step: Step, isFault: Bool)]) {
        if contsLeft > 0 { steps.append((.destination(.cont), false)) }
        for operation in destinationOperations {
            func add(_ outcome: Outcome, isFault: Bool = false) {
                steps.append((.destination(.ended(operation, outcome)), isFault))
            }
            switch operation {
            case .proceed, .undo, .returnLease: add(.success)
            case .prepareMemory, .loadDevices, .acquire, .start:
                add(.success)
                add(.failure, isFault: true)
            case .commitLease:
                steps.append((.destination(.storeDecides), false))
                add(.unreachable, isFault: true)
            case .commitDecided(let isWon): add(isWon ? .success : .failure)
            }
        }
        if destination.awaitsBye, destinationLink != .up, !destinationOperations.contains(where: \.isOfLease) {
            steps.append((.destination(.sourceGivenUp), false))
        }
        if dialed?.isEmpty == false { steps.append((.destination(.accepted), false)) }
        if let message = toDestination.first, destinationLink == .up {
            steps.append((.destination(.received(message)), false))
        }
        if destinationLink == .up {
            let mustNotice = toDestination.isEmpty && (!isJoined || !isSourceAlive)
            steps.append((.destination(.linkLost), !mustNotice))
        }
        if allPagesSent, !allPagesResident, destination.state != .failed, destination.state != .cancelled {
            // Pages come over lanes of their own, so that they may arrive before or after anything on this one.
            steps.append((.destination(.allPagesResident), !isJoined))
        }
        steps.append((.destinationDies, true))
    }
}

extension SourceMachine {
    /// Whether the link that is being made is not the first.
    fileprivate var hasLinkedBefore: Bool { state != .setup }
}
