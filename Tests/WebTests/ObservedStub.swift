import Exposition
import Synchronization
import Telemetry

/// A process that shows what a test says, and records the actions of clients.
final class ObservedStub: Observed {
    private struct State {
        var live = LiveState(.agent)
        var actions: [LiveAction] = []
        var refusal: ActionRefused?
        var unreadiness: String?
        var guests: [LiveGuest] = []
        var looks = 0
        var time = Duration.zero
    }

    private let state = Mutex(State())

    var kind: LiveState.Kind { .agent }

    func show(_ change: (inout LiveState) -> Void) { state.withLock { change(&$0.live) } }
    func refuse(_ refusal: ActionRefused?) { state.withLock { $0.refusal = refusal } }
    func be(unready reason: String?) { state.withLock { $0.unreadiness = reason } }
    func have(_ guests: [LiveGuest]) { state.withLock { $0.guests = guests } }
    /// Makes each look take this long.
    func take(_ time: Duration) { state.withLock { $0.time = time } }
    var actions: [LiveAction] { state.withLock { $0.actions } }
    var looks: Int { state.withLock { $0.looks } }

    func liveState() async -> LiveState {
        await look()
        return state.withLock { $0.live }
    }

    private func look() async {
        let time = state.withLock { state in
            state.looks += 1
            return state.time
        }
        // Ends early only if the test ends.
        try? await Task.sleep(for: time)
    }

    func metrics() async -> MetricSet {
        await look()
        var set = MetricSet()
        set.add(.workloadRunning, 1)
        set.add(guests: state.withLock { $0.guests }, adopted: 0)
        return set
    }

    func unreadiness() async -> String? { state.withLock { $0.unreadiness } }

    func act(_ action: LiveAction) async throws(ActionRefused) {
        let refusal = state.withLock { state -> ActionRefused? in
            state.actions.append(action)
            return state.refusal
        }
        if let refusal { throw refusal }
    }
}
