import Connections
import Identity
import LinuxSystem
import Logging
import Switchover

/// The end of the workload by itself, and the exit of the agent.
extension SourceSession {
    /// How long an exiting agent redials a destination that only needs to hear that the workload was taken back.
    private static let leaveTime = Duration.seconds(5)

    /// Whether the destination or the workload here still needs this agent for the migration.
    var isNeeded: Bool { !machine.isOver && !(course.end != nil && machine.isHeld && !machine.owesWord) }

    /// Why the workload that has moved away was lost, by the operator's word; nil if it was not.
    var loss: String? {
        guard machine.state == .failed, machine.isOver, !machine.isWorkloadHere else { return nil }
        return machine.failureReason
    }

    /// Waits until the session no longer needs the agent.
    func ended() async {
        while isNeeded { await nextChange() }
    }

    /// Waits until the session no longer needs an exiting agent.
    ///
    /// A migration that waits for an operator is cancelled.
    func waitUntilUnneeded() async {
        if leaving == .no { leaving = .asked }
        hurry()
        while isNeeded {
            if machine.awaitsOperator {
                logger.notice("cancelling the migration: the agent is exiting, and the migration waits for an operator")
                // A migration that can no longer be cancelled is waited for instead.
                try? await cancel()
            } else {
                await nextChange()
            }
        }
        // The queued messages must be sent before the process exits, and a workload in another process must hear that it
        // has moved for good.
        await threads.hangUps.threads.joined()
        await threads.partings.threads.joined()
    }

    /// How long the source redials after the link has broken, before an operator must act.
    var searchTime: Duration {
        leaving == .hurries ? min(settings.recoveryTime, SourceSession.leaveTime) : settings.recoveryTime
    }

    /// Restarts the redialing with a shorter limit once the agent exits and only owes the destination a message.
    func hurry() {
        guard leaving == .asked, machine.owesWord else { return }
        leaving = .hurries
        events.add(.wordOverdue, after: settings.wordTime)
        let wasUnderWay = redialing.attempt != nil
        redialing.reset()
        if wasUnderWay { startRedial() }
    }

    /// Gives up the confirmation that the workload was taken back, which has not come in `wordTime` over any link.
    ///
    /// The destination may be retrying the undo of its start without end.
    func giveUpWord() {
        guard machine.owesWord else { return }
        let time = settings.wordTime.text
        let silence = "\(destination) has not confirmed within \(time) that the workload was taken back"
        logger.warning("\(silence); exiting without that: check whether \(destination) still undoes its start")
        endLink("the agent is exiting and no longer waits for an answer")
        redialing.reset()
        stopLooking()
    }

    /// Records that the workload here has ended by itself.
    ///
    /// - Returns: whether the workload was here or could have been taken back.
    func noteWorkloadEnd(_ reason: String) -> Bool {
        let isTold = machine.isTakeBackPossible
        course.end = (reason, isTold)
        waiting.changes.resume()
        return isTold
    }
}
