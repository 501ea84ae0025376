import Exposition
import FaultHandler
import PageFetcher
import Synchronization
import Telemetry

/// The handler of restored guests as the live page and the metrics show it.
final class ObservedHandler: Observed {
    private let roster: GuestRoster
    private let isReady = Atomic<Bool>(false)

    /// Makes a view of the handler that keeps this roster.
    init(_ roster: GuestRoster) {
        self.roster = roster
    }

    /// Notes that guests can attach from now on.
    func noteReady() { isReady.store(true, ordering: .relaxed) }

    var kind: LiveState.Kind { .handler }

    func liveState() async -> LiveState {
        var state = LiveState(.handler)
        state.guests = roster.guests
        return state
    }

    func metrics() async -> MetricSet {
        var set = MetricSet()
        set.add(guests: roster.guests, adopted: roster.adopted)
        return set
    }

    func unreadiness() async -> String? { isReady.load(ordering: .relaxed) ? nil : "the handler is starting" }

    func act(_ action: LiveAction) async throws(ActionRefused) {
        switch action {
        case .fill(let guest, let bytesPerSecond):
            try fill(guest, at: bytesPerSecond == 0 ? .unlimited : FillRate(bytesPerSecond: bytesPerSecond))
        case .release(let guest): try fill(guest, at: .unlimited)
        case .cancel, .recover, .cont, .pause:
            throw ActionRefused(reason: "a handler of restored guests has no migration", isUnknown: true)
        }
    }

    private func fill(_ guest: LiveGuest.ID, at rate: FillRate) throws(ActionRefused) {
        do throws(FillRefused) {
            try roster.fill(guest, at: rate)
        } catch {
            throw ActionRefused(reason: "\(error)", isUnknown: error.isUnknown)
        }
    }
}
