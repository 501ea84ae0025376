import Identity
import Switchover

/// The states that a migration has passed, each reported once.
struct StateLog: Sendable {
    private(set) var states: [MigrationState] = [.none]
    private let onChange: @Sendable (MigrationState) -> Void

    init(onChange: @escaping @Sendable (MigrationState) -> Void) {
        self.onChange = onChange
    }

    /// Records and reports the present state, unless it is the last one recorded.
    mutating func note(_ state: MigrationState) {
        guard state != states.last else { return }
        states.append(state)
        onChange(state)
    }
}

extension MigrationState {
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
