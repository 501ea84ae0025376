import Synchronization

/// A clock that goes with the time, and that a test sets forward.
final class TestClock: Clock, Sendable {
    struct Instant: InstantProtocol {
        fileprivate var offset: Duration

        func advanced(by duration: Duration) -> Instant { Instant(offset: offset + duration) }

        func duration(to other: Instant) -> Duration { other.offset - offset }

        static func < (left: Instant, right: Instant) -> Bool { left.offset < right.offset }
    }

    private struct State {
        var skipped = Duration.zero
        var sleepers: [Int: (deadline: Instant, continuation: CheckedContinuation<Void, Never>)] = [:]
        var number = 0

        mutating func takeDue(_ now: Instant) -> [CheckedContinuation<Void, Never>] {
            let due = sleepers.filter { $0.value.deadline <= now }
            for number in due.keys { sleepers[number] = nil }
            return due.values.map(\.continuation)
        }
    }

    private let begin = ContinuousClock.now
    private let state = Mutex(State())

    var now: Instant { instant(state.withLock(\.skipped)) }

    var minimumResolution: Duration { ContinuousClock().minimumResolution }

    func sleep(until deadline: Instant, tolerance: Duration?) async throws {
        Task {
            try? await Task.sleep(for: now.duration(to: deadline))
            wakeDue()
        }
        await withCheckedContinuation { continuation in
            state.withLock { state in
                state.number += 1
                state.sleepers[state.number] = (deadline, continuation)
            }
            wakeDue()
        }
    }

    /// Sets the clock forward; timers that are due then fire at once.
    func skip(_ time: Duration) {
        state.withLock { $0.skipped += time }
        wakeDue()
    }

    private func wakeDue() {
        let due = state.withLock { state in state.takeDue(instant(state.skipped)) }
        due.forEach { $0.resume() }
    }

    private func instant(_ skipped: Duration) -> Instant { Instant(offset: begin.duration(to: .now) + skipped) }
}
