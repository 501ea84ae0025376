package import Identity

/// A message of the destination on the control link.
package enum DestinationMessage: Hashable, Sendable {
    /// READY: the memory for all regions is mapped.
    case ready
    /// REFUSED: this destination does not accept the migration.
    case refused(reason: String)
    /// HELLO and RECEIVED, in answer to a rejoining HELLO: the pages that this destination already has.
    case welcome
    /// PONG, with the number of the PING: all devices have loaded.
    case pong(UInt64)
    /// DEVICES_FAILED: the state of a device did not load.
    case devicesFailed(device: String, reason: String)
    /// RUNNING: the RUN with this token has started the workload.
    case running(RunToken)
    /// START_FAILED: a promise that the RUN with this token never starts the workload.
    case startFailed(RunToken, reason: String)
    /// CANCELLED: a promise that no RUN starts the workload any more; answers the CANCEL with this token.
    case cancelled(RunToken)
    /// START_REQUEST: `cont` asks for another RUN.
    case startRequest
    /// COMPLETE_ACK: this destination has every page.
    case completeAck
}

/// What the driver of a ``DestinationMachine`` has to do, in the order given.
///
/// `prepareMemory`, `loadDevices`, `acquire`, `commitLease`, `start`, `undo` and `returnLease` take time. An event
/// reports the end of each, and other events may come first. At most one of these operations is under way at a time,
/// except that a `commitLease` or `returnLease` whose result no longer matters may still run beside another.
package enum DestinationAction: Hashable, Sendable {
    /// Send a message on the control link. A broken link drops the message.
    case send(DestinationMessage)
    /// Call `proceed()` next; the state in between is one that clients must see.
    case proceed
    /// Map memory for the regions, then report `memoryPrepared` or `memoryRefused`.
    case prepareMemory
    /// Unmap the prepared memory: the link that asked for it is gone.
    case discardMemory
    /// Register the memory and serve faults, since loading a device may touch memory.
    case serveFaults
    /// Load all devices, then report `devicesLoaded` or `deviceLoadFailed`.
    case loadDevices
    /// Run the start hooks and take the disk locks, then report `acquired` or `acquireFailed`.
    case acquire(RunGrant)
    /// Write a lease record after the grant's epoch that names this side, started.
    ///
    /// Then report `leaseCommitted`; report `leaseRefused` if that record provably was not written and never will be.
    case commitLease(RunGrant)
    /// Start the workload: the commit point is passed.
    ///
    /// Then report `started`; `startEnded` if the workload has already exited by itself and may have executed; or
    /// `startFailed` if it provably executed nothing.
    case start(RunGrant)
    /// Undo all that `acquire` has done, then report `undone`.
    ///
    /// `acquire` may have failed halfway. Retry until everything is undone: the promise to the source waits for that.
    case undo(RunGrant)
    /// Write a lease record after the commit's that names the source, not started.
    ///
    /// Retry until the record is written, then report `leaseReturned`.
    case returnLease(RunGrant)
    /// Answer every waiting `cont`: the workload runs.
    case contSucceeded
    /// Answer every waiting `cont`: it failed for this reason.
    case contFailed(reason: String)
    /// Close the link, which is not needed any more; send the reason to the peer and log it.
    case closeLink(reason: String)
    /// Close the link at once, since the peer broke the protocol; send the reason to the peer and log it.
    case violation(String)
}

/// The answer to `migrate-incoming`.
package enum MigrateIncomingAnswer: Hashable, Sendable {
    /// Accepted: listen for a source.
    case listen
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `cont` on the destination.
package enum ContAnswer: Hashable, Sendable {
    /// The workload runs.
    case succeeded
    /// The workload does not run, for this reason.
    case failed(reason: String)
    /// The answer comes later, as `contSucceeded` or `contFailed`.
    case waits
    /// The answer comes later, as `contSucceeded` or `contFailed`: begin the start that RUN granted.
    ///
    /// Act as for ``DestinationAction/acquire(_:)``.
    case acquire(RunGrant)
    /// The answer comes later, as `contSucceeded` or `contFailed`: send START_REQUEST.
    case requestStart
}

/// The answer to a rejoining HELLO.
package enum RejoinAnswer: Hashable, Sendable {
    /// Replace the link before by the new one, send HELLO and RECEIVED, then perform these actions.
    case welcome([DestinationAction])
    /// Refuse the new link, and perform these actions, which concern the link before.
    case refuse(reason: String, [DestinationAction])
}
