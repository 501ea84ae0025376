import Switchover

/// Both machines, what is on its way between them, what their drivers are doing, and what is true outside of them.
///
/// A link that breaks is the choice of either side to notice it, at any time. Until the other side has noticed as well
/// it may still receive any part of what was sent before, and may go on sending into the void: each side sees a prefix
/// of what its peer sent, then the loss, in every combination.
struct World: Hashable {
    enum Link: Hashable { case none, up, lost }

    // The machines and their drivers.
    var source: SourceMachine
    var destination: DestinationMachine
    var sourceOperations: Set<SourceOperation> = []
    var destinationOperations: Set<DestinationOperation> = []
    var sourceLink = Link.none
    var destinationLink = Link.none
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

    // What was said.
    var runsSent = 0
    var heardPong = false
    /// START_FAILED reached the source for the RUN that was sent last.
    var heardPromise = false
    var heardRunning = false
    var contWaits = false
    /// Properties that an action of a side has broken.
    var misdeeds: Set<Property> = []

    // What the operator may still do.
    var contsLeft: Int
    var mayStart = true
    var retriesLeft = 1
    let startsStopped: Bool
    let policy: StartRefusalPolicy

    init(startsStopped: Bool, policy: StartRefusalPolicy, conts: Int = 2) {
        source = SourceMachine(afterStartRefusal: policy)
        destination = DestinationMachine(startsStopped: startsStopped)
        self.startsStopped = startsStopped
        self.policy = policy
        contsLeft = conts
        _ = destination.migrateIncoming()
    }

    /// The source has sent RUN and has no promise that it will not start.
    var runIsOut: Bool { runsSent > 0 && !heardPromise }

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
        if source.state == .none { steps.append((.source(.migrate), false)) }
        if mayStart, source.state == .setup || source.state == .active {
            steps.append((.source(.startPostcopy), false))
        }
        if resumeFailed, retriesLeft > 0, sourceOperations.isEmpty { steps.append((.source(.retryResume), false)) }
        for operation in sourceOperations {
            let hopeless = operation == .connect && !isDestinationAlive
            if !hopeless { steps.append((.source(.ended(operation, succeeded: true)), false)) }
            if operation != .proceed { steps.append((.source(.ended(operation, succeeded: false)), !hopeless)) }
        }
        if let message = toSource.first, sourceLink == .up { steps.append((.source(.received(message)), false)) }
        if sourceLink == .up {
            let mustNotice = destinationLink == .lost || !isDestinationAlive
            steps.append((.source(.linkLost), !mustNotice))
            if source.state == .postcopyDevice || source.state == .postcopyActive, !allPagesSent {
                steps.append((.source(.allPagesSent), false))
            }
        }
        steps.append((.sourceDies, true))
    }

    private func addDestinationSteps(_ steps: inout [(step: Step, isFault: Bool)]) {
        if contsLeft > 0 { steps.append((.destination(.cont), false)) }
        for operation in destinationOperations {
            steps.append((.destination(.ended(operation, succeeded: true)), false))
            if operation != .proceed, operation != .undo {
                steps.append((.destination(.ended(operation, succeeded: false)), true))
            }
        }
        if let message = toDestination.first, destinationLink == .up {
            steps.append((.destination(.received(message)), false))
        }
        if destinationLink == .up {
            let mustNotice = sourceLink == .lost || !isSourceAlive
            steps.append((.destination(.linkLost), !mustNotice))
        }
        if allPagesSent, !allPagesResident, destination.state != .failed {
            // Pages come over lanes of their own, so that they may arrive before or after anything on this one.
            steps.append((.destination(.allPagesResident), destinationLink != .up))
        }
        steps.append((.destinationDies, true))
    }
}
