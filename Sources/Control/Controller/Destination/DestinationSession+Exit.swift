import Connections
import Identity
import LinuxSystem
import Logging
import Switchover

/// The agent's exit: the machine decides what it waits for, this file limits the waits and ends the link.
extension DestinationSession {
    /// How long an exiting agent waits for a message that is due from the source.
    static let leaveTime = Duration.seconds(5)

    /// Prepares for the exit of the agent: nothing starts here any more.
    ///
    /// - Parameters:
    ///   - reason: why the agent exits.
    ///   - isPatient: whether to wait for the pages of a workload that runs here, and to give the source more time to
    ///     reconnect.
    func leave(_ reason: String, isPatient: Bool) async {
        if exit == nil, isBeforeStart {
            logger.notice("nothing starts here any more: \(reason)")
        }
        exit = exit ?? Exit(reason: reason)
        // An exit that becomes impatient limits its waits anew. The number of waits goes on, so that an earlier timer of a
        // word does not count.
        if machine.isPatient, !isPatient {
            exit?.wait = nil
            exit?.limited = []
        }
        perform(machine.exit(reason: reason, isPatient: isPatient))
        tellChange()
        while machine.exitWait != nil { await nextChange() }
        waiting.conts.refuse(reason)
        if isBeforeStart {
            hangUp(reason: reason)
            perform(machine.linkEnded(reason: reason))
        }
        // The queued messages must be sent before the process exits, and a workload in another process must hear that its
        // memory is complete.
        await threads.hangUps.threads.joined()
        if machine.state == .completed { await threads.partings.threads.joined() }
    }

    /// Whether a workload is on its way that has not started here, so that its source must hear of the exit.
    private var isBeforeStart: Bool { machine.state == .active || machine.state == .postcopyDevice }

    /// Limits the present wait of the exit.
    func limitExit() {
        guard let wait = machine.exitWait else {
            exit?.wait = nil
            return
        }
        guard var exit, exit.wait != wait else { return }
        exit.wait = wait
        exit.waits += 1
        // Each due message gets the full time. All waits of another kind share one timer per kind.
        let isLimited = wait == .word ? true : exit.limited.insert(wait).inserted
        if isLimited, let time = time(for: wait) { events.add(.exitOverdue(wait, exit.waits), after: time) }
        self.exit = exit
    }

    /// The longest time for a wait of the exit; nil if it has no limit.
    private func time(for wait: ExitWait) -> Duration? {
        switch wait {
        case .pages: nil
        case .bye: max(settings.recoveryTime, DestinationSession.leaveTime)
        case .start, .undo: machine.isPatient ? nil : DestinationSession.startTime
        case .source: machine.isPatient ? settings.recoveryTime : DestinationSession.leaveTime
        case .word: DestinationSession.leaveTime
        }
    }
}
