/// A message of the destination on the control link.
public enum DestinationMessage: Hashable, Sendable {
    /// READY: the memory for all regions is there.
    case ready
    /// REFUSED: this migration cannot come here.
    case refused(reason: String)
    /// HELLO and RECEIVED, in answer to a HELLO that rejoins: which pages are here.
    case welcome
    /// PONG: all devices have loaded. It carries the number of the PING.
    case pong(UInt64)
    /// DEVICES_FAILED: a device's state does not load.
    case devicesFailed(device: String, reason: String)
    /// RUNNING: the workload was started by the RUN with this token.
    case running(RunToken)
    /// START_FAILED: a promise that the RUN with this token never starts the workload.
    case startFailed(RunToken, reason: String)
    /// CANCELLED: a promise that no RUN starts the workload any more, in answer to the CANCEL with this token.
    case cancelled(RunToken)
    /// START_REQUEST: `cont` was tried again; asks for another RUN.
    case startRequest
    /// COMPLETE_ACK: every page is here.
    case completeAck
}

/// What the driver of a ``DestinationMachine`` has to do, in the order given.
///
/// `prepareMemory`, `loadDevices`, `acquire`, `commitLease`, `start`, `undo` and `returnLease` take their time: their end
/// is reported by an event, and any other event may come before it. At most one of them is under way at a time, but that
/// a `commitLease` or `returnLease` whose end nothing waits for any more may still be.
public enum DestinationAction: Hashable, Sendable {
    /// Put a message on the control link. A link that is already broken swallows it.
    case send(DestinationMessage)
    /// Call `proceed()` next; the state between is one to be seen.
    case proceed
    /// Map memory for the regions, then report `memoryPrepared` or `memoryRefused`.
    case prepareMemory
    /// Let go of the memory that was prepared: the link that asked for it is gone.
    case discardMemory
    /// Register the memory and serve faults: a device's load may touch memory.
    case serveFaults
    /// Load all devices, then report `devicesLoaded` or `deviceLoadFailed`.
    case loadDevices
    /// Run the start hooks and take the disk locks, then report `acquired` or `acquireFailed`.
    case acquire(RunGrant)
    /// Write this side as the owner, started, into the lease's record after the grant's epoch; then report
    /// `leaseCommitted`, or `leaseRefused` if that provably was not and never will be written.
    case commitLease(RunGrant)
    /// The commit point is passed: start the workload, then report `started`; `startEnded` if it has ended by itself since
    /// and may have executed; or `startFailed` if it provably executed nothing.
    case start(RunGrant)
    /// Undo what `acquire` has done, wholly or in part, then report `undone`. Repeat it until it is done: the promise
    /// to the source waits for it.
    case undo(RunGrant)
    /// Write the source as the owner, not started, into the lease's record after the commit's. Repeat it until it is
    /// done, then report `leaseReturned`.
    case returnLease(RunGrant)
    /// Answer every `cont` that waits: the workload runs.
    case contSucceeded
    /// Answer every `cont` that waits: it failed for this reason.
    case contFailed(reason: String)
    /// The link has served: close it, the reason is for the peer and the log.
    case closeLink(reason: String)
    /// The peer broke the protocol: close the link at once, the reason is for the peer and the log.
    case violation(String)
}

/// The answer to `migrate-incoming`.
public enum MigrateIncomingAnswer: Hashable, Sendable {
    /// Wait for a source.
    case listen
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `cont` on the destination.
public enum ContAnswer: Hashable, Sendable {
    /// The workload runs.
    case succeeded
    /// The workload does not run, for this reason.
    case failed(reason: String)
    /// Neither yet: `contSucceeded` or `contFailed` follows.
    case waits
    /// `contSucceeded` or `contFailed` follows; begin the start that RUN granted: act as for
    /// ``DestinationAction/acquire(_:)``.
    case acquire(RunGrant)
    /// `contSucceeded` or `contFailed` follows; send START_REQUEST.
    case requestStart
}

/// The answer to a HELLO that rejoins.
public enum RejoinAnswer: Hashable, Sendable {
    /// Take the new link in place of the one before, answer HELLO and say what is here, then do this.
    case welcome([DestinationAction])
    /// Refuse the new link, and do this with the one before.
    case refuse(reason: String, [DestinationAction])
}
