import Switchover

/// The states a migration has passed, and who wants to be told of each.
struct StateLog: Sendable {
    private(set) var states: [MigrationState] = [.none]
    private let onChange: @Sendable (MigrationState) -> Void

    init(onChange: @escaping @Sendable (MigrationState) -> Void) {
        self.onChange = onChange
    }

    /// Notes the present state, if it is another than before.
    mutating func note(_ state: MigrationState) {
        guard state != states.last else { return }
        states.append(state)
        onChange(state)
    }
}
