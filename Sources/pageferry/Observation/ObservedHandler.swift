import Exposition
import Telemetry

/// The handler of restored guests as the live page and the metrics show it.
final class ObservedHandler: Observed {
    /// The guests now, and how many of all guests so far were taken over from an earlier handler.
    typealias Look = @Sendable () async -> (guests: [LiveGuest], adopted: Int)

    private let look: Look
    private let fill: @Sendable (_ process: Int32, _ bytesPerSecond: UInt64) async throws(ActionRefused) -> Void

    /// Makes a view of a handler.
    ///
    /// - Parameters:
    ///   - look: returns the guests.
    ///   - fill: lets the rest of a guest's memory be fetched, at most this fast; 0 for no limit.
    init(
        _ look: @escaping Look = { ([], 0) },
        fill: @escaping @Sendable (_ process: Int32, _ bytesPerSecond: UInt64) async throws(ActionRefused) -> Void = {
            (process, _) throws(ActionRefused) in
            throw ActionRefused(reason: "process \(process) is no guest of this handler", isUnknown: true)
        }
    ) {
        self.look = look
        self.fill = fill
    }

    var kind: LiveState.Kind { .handler }

    func liveState() async -> LiveState {
        var state = LiveState(.handler)
        state.guests = await look().guests
        return state
    }

    func metrics() async -> MetricSet {
        let (guests, adopted) = await look()
        var set = MetricSet()
        set.add(guests: guests, adopted: adopted)
        return set
    }

    /// Nil: the handler is observed only once it listens.
    func unreadiness() async -> String? { nil }

    func act(_ action: LiveAction) async throws(ActionRefused) {
        switch action {
        case .fill(let process, let bytesPerSecond): try await fill(process, bytesPerSecond)
        case .release(let process): try await fill(process, 0)
        case .cancel, .recover, .cont, .pause:
            throw ActionRefused(reason: "a handler of restored guests has no migration", isUnknown: true)
        }
    }
}
