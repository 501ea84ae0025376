/// What the exit of a destination's process waits for.
package enum ExitWait: CaseIterable, Hashable, Sendable {
    /// The workload runs here and needs pages of its source.
    case pages
    /// Every page is here, and the source still has to say BYE.
    case bye
    /// A start that can no longer be refused is under way.
    case start
    /// A start is being prepared or undone, or the lease's store still has to answer.
    case undo
    /// The source must reconnect to hear that nothing starts here.
    case source
    /// A message of the source is due: RUN, CANCEL or BYE.
    case word
}

/// The exit of the process.
extension DestinationMachine {
    /// How the process exits.
    struct Exit: Hashable, Sendable {
        /// Whether the exit waits for a workload that runs here.
        var isPatient: Bool
        /// The waits whose time is over.
        var overdue: Set<ExitWait> = []
    }

    /// Begins the exit of the process: nothing starts here any more, as after ``prohibitStart(reason:)``.
    ///
    /// The process exits once ``exitWait`` is nil. A second call makes a patient exit an impatient one, and never the
    /// other way round.
    ///
    /// - Parameters:
    ///   - reason: why the process exits.
    ///   - isPatient: whether the exit waits for a workload that runs here.
    package mutating func exit(reason: String, isPatient: Bool) -> [DestinationAction] {
        exit = Exit(isPatient: isPatient && exit?.isPatient ?? true, overdue: exit?.overdue ?? [])
        return prohibitStart(reason: reason)
    }

    /// Whether an exit waits for a workload that runs here.
    package var isPatient: Bool { exit?.isPatient ?? false }

    /// What the exit waits for now; nil if the process may exit, or if no exit was asked for.
    package var exitWait: ExitWait? {
        guard let exit else { return nil }
        return waits.first { !exit.overdue.contains($0) && (exit.isPatient || $0 != .pages && $0 != .bye) }
    }

    /// Handles the end of the time for a wait: the exit does not wait for that any more.
    package mutating func exitOverdue(_ wait: ExitWait) {
        exit?.overdue.insert(wait)
    }

    /// Whether the workload here or its source still needs the process.
    ///
    /// A source that may send RUN over a standing link does not need the process.
    package var isNeeded: Bool {
        waits.contains { wait in
            switch wait {
            case .pages, .bye, .start, .source: true
            case .undo: isPreparingStart
            case .word: false
            }
        }
    }

    /// All that a patient exit waits for, the most important first.
    private var waits: [ExitWait] {
        var waits: [ExitWait] = []
        switch current {
        case .starting: waits.append(.start)
        // A workload that has ended needs no page, and its source learns of the end from the last link.
        case .running where endReason == nil: waits.append(.pages)
        case .completed(_, saidBye: false) where endReason == nil: waits.append(.bye)
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .undoing, .returning, .refused, .running, .completed, .abandoned, .resigned, .failed:
            break
        }
        if isPreparingStart || owesLease { waits.append(.undo) }
        if awaitsSource { waits.append(.source) }
        if owesPromise { waits.append(.word) }
        return waits
    }
}
