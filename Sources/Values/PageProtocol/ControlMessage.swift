package import Identity

/// A frame of the control connection as a value.
///
/// The source draws a fresh token for every RUN. A reason is one line of text.
package enum ControlMessage: Hashable, Sendable {
    /// Both sides, first: the sender's role, identity and capabilities.
    case hello(Hello)
    /// Either side: refuses the peer's HELLO, REGIONS or SLICES; the sender closes after it.
    case refused(reason: String)
    /// Source: the guest that is to move.
    case regions(guest: GuestAnnouncement)
    /// Destination: there is room for the regions.
    case ready
    /// Source: the workload has stopped; map, register and serve faults.
    case listen
    /// Source: the device states that follow, in order.
    case devices([DeviceEntry])
    /// Source, if the destination takes state ahead: the device states that follow, saved while the workload still
    /// runs.
    case devicesAhead([DeviceEntry])
    /// Source: 1 byte to 1 MiB of the announced states, concatenated in order.
    case deviceData([UInt8])
    /// Either side: answer with the same number.
    case ping(UInt64)
    /// Either side: the answer to the PING of that number.
    case pong(UInt64)
    /// Destination: a device did not load; `device` is empty if no single device is at fault.
    case devicesFailed(device: String, reason: String)
    /// Source: start under this token; `epoch` is that of the source's lease, 0 without a lease.
    case run(token: RunToken, epoch: UInt64)
    /// Destination: it has committed to start under this token.
    case running(token: RunToken)
    /// Destination: a promise that this token never starts.
    case startFailed(token: RunToken, reason: String)
    /// Destination: asks for a new RUN after a failed start.
    case startRequest
    /// Source: wants the workload back from the start of this token.
    case cancel(token: RunToken)
    /// Destination: a promise that this token never starts.
    case cancelled(token: RunToken)
    /// Destination, to a source that rejoins: the pages that the destination has.
    case received(ReceivedPages)
    /// Source: every page was sent.
    case complete
    /// Destination: every page was placed.
    case completeAck
    /// Either side: done; the sender closes after it.
    case bye
    /// Either side: why the sender hangs up.
    case failure(reason: String)
    /// Destination, to a snapshot's server: where the guest's regions lie in the file; frames name a slice by its
    /// index.
    case slices([SnapshotSlice])
    /// Snapshot's server: the server serves the slices of this snapshot; sent again if the identity was renewed.
    case snapshot(SnapshotIdentity)

    /// The message's kind on the wire.
    package var kind: FrameKind {
        switch self {
        case .hello: .hello
        case .refused: .refused
        case .regions: .regions
        case .ready: .ready
        case .listen: .listen
        case .devices: .devices
        case .devicesAhead: .devicesAhead
        case .deviceData: .deviceData
        case .ping: .ping
        case .pong: .pong
        case .devicesFailed: .devicesFailed
        case .run: .run
        case .running: .running
        case .startFailed: .startFailed
        case .startRequest: .startRequest
        case .cancel: .cancel
        case .cancelled: .cancelled
        case .received: .received
        case .complete: .complete
        case .completeAck: .completeAck
        case .bye: .bye
        case .failure: .failure
        case .slices: .slices
        case .snapshot: .snapshot
        }
    }
}
