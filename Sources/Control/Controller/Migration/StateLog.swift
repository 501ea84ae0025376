import Identity
import Switchover
import Telemetry

/// The states that a migration has passed, each reported once.
///
/// While the workload runs nowhere, events for clients are held back: writing them, and the queries with which clients
/// answer, would take processors from the switchover.
struct StateLog: Sendable {
    /// The longest time for which events are held back.
    static let holdTime = Duration.milliseconds(20)

    /// The states with their times.
    private(set) var path = StatePath()
    /// The side that passes the states.
    let role: LiveState.Migration.Role
    private let sink: EventSink
    private let onHold: @Sendable () -> Void
    private var hasHeld = false
    private var isHolding = false

    /// The states, the oldest first.
    var states: [MigrationState] { path.passed.map { $0.state } }

    private var last: MigrationState? { path.passed.last?.state }

    /// Makes a log of no states.
    ///
    /// - Parameters:
    ///   - role: the side that passes the states.
    ///   - sink: receives each state.
    ///   - onHold: called when events begin to be held back; must arrange a call of ``release()`` after
    ///     ``holdTime``.
    init(role: LiveState.Migration.Role, sink: EventSink, onHold: @escaping @Sendable () -> Void) {
        self.role = role
        self.sink = sink
        self.onHold = onHold
    }

    /// Holds events back until the workload runs again, or for ``holdTime``; only once in a migration.
    mutating func hold() {
        guard !hasHeld else { return }
        (hasHeld, isHolding) = (true, true)
        sink.hold()
        onHold()
    }

    /// Records and reports the present state, unless it is the last one recorded.
    mutating func note(_ state: MigrationState) {
        guard state != last else { return }
        if state.isSwitchover { hold() }
        sink.tally.note(state, after: last, as: role)
        path.note(state)
        sink.send(state)
    }

    /// Passes on the events that were held back, if the workload is not between its two hosts any more.
    ///
    /// Called after each event of the session, when the messages to the peer have been sent.
    ///
    /// - Parameter isStarting: whether the destination was told to start the workload, and has not reported the start.
    mutating func settle(isStarting: Bool = false) {
        guard isHolding, let state = last, !state.isSwitchover, state != .active else { return }
        if state != .postcopyActive || !isStarting { release() }
    }

    /// Passes on the events that were held back.
    mutating func release() {
        guard isHolding else { return }
        isHolding = false
        sink.release()
    }
}

extension MigrationState {
    /// Whether the workload is stopped at its source, and has not started at the destination.
    fileprivate var isSwitchover: Bool { self == .device || self == .postcopyDevice }

    /// Whether the migration has ended or never begun.
    var isEnd: Bool {
        switch self {
        case .none, .completed, .cancelled, .failed: true
        case .setup, .active, .preSwitchover, .device, .postcopyDevice, .postcopyActive, .postcopyPaused,
            .postcopyRecoverSetup, .postcopyRecover, .cancelling:
            false
        }
    }
}
