/// A frame of the control connection as a value.
///
/// Tokens are drawn fresh by the source for every RUN. Reasons are one line of text.
public enum ControlMessage: Hashable, Sendable {
    /// Both sides, first: who is there.
    case hello(Hello)
    /// Either side: no to the peer's HELLO, REGIONS or SLICES; the sender closes after it.
    case refused(reason: String)
    /// Source: the guest that is to move.
    case regions(guest: GuestAnnouncement)
    /// Destination: there is room for the regions.
    case ready
    /// Source: the workload has stopped; map, register and serve faults.
    case listen
    /// Source: the device states that follow, in order.
    case devices([DeviceEntry])
    /// Source: 1 byte to 1 MiB of the announced states, concatenated in order.
    case deviceData([UInt8])
    /// Either side: answer with the same number.
    case ping(UInt64)
    /// Either side: the answer to the PING of that number.
    case pong(UInt64)
    /// Destination: a device did not load. `device` is empty if the fault is no single device's.
    case devicesFailed(device: String, reason: String)
    /// Source: start under this token; `epoch` is that of the lease which the source holds, 0 without one.
    case run(token: UInt64, epoch: UInt64)
    /// Destination: it has committed to start under this token.
    case running(token: UInt64)
    /// Destination: a promise that this token never starts.
    case startFailed(token: UInt64, reason: String)
    /// Destination: asks for a new RUN after a failed start.
    case startRequest
    /// Source: wants the workload back from the start of this token.
    case cancel(token: UInt64)
    /// Destination: a promise that this token never starts.
    case cancelled(token: UInt64)
    /// Destination, to a source that rejoins: which pages it has.
    case received(ReceivedPages)
    /// Source: every page was sent.
    case complete
    /// Destination: every page was placed.
    case completeAck
    /// Either side: done; the sender closes after it.
    case bye
    /// Either side: why the sender hangs up.
    case failure(reason: String)
    /// Destination, to a snapshot's server: where the guest's regions lie in the file; a frame names one by its index here.
    case slices([SnapshotSlice])
    /// Snapshot's server: it serves the slices of this file.
    case snapshot(SnapshotIdentity)

    /// The message's kind on the wire.
    public var kind: FrameKind {
        switch self {
        case .hello: .hello
        case .refused: .refused
        case .regions: .regions
        case .ready: .ready
        case .listen: .listen
        case .devices: .devices
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
