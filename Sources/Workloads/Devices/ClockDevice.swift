import Guest
import LinuxSystem
import Synchronization

/// The guest's clock: nanoseconds that it has run since its birth. It stands still while the workload is stopped and
/// never goes backwards.
final class ClockDevice: Device {
    let name = "clock"

    private struct State {
        var elapsed: UInt64 = 0
        /// When it was started, in time of ``MonotonicClock``; nil while it stands still.
        var started: UInt64?
    }

    private let state = Mutex(State())

    /// What it shows, in nanoseconds.
    var now: UInt64 {
        state.withLock { state in
            state.elapsed + (state.started.map { MonotonicClock.now() - $0 } ?? 0)
        }
    }

    func start() {
        state.withLock { state in
            guard state.started == nil else { return }
            state.started = MonotonicClock.now()
        }
    }

    func stop() {
        state.withLock { state in
            guard let started = state.started else { return }
            state.elapsed += MonotonicClock.now() - started
            state.started = nil
        }
    }

    func save() -> [UInt8] {
        var writer = StateWriter()
        writer.append(now)
        return writer.bytes
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        // 292 years: whatever is added to it later cannot overflow.
        let elapsed: UInt64 = try reader.next(in: 0...(1 << 63 - 1)) { "it shows \($0) ns" }
        try reader.finish()
        self.state.withLock { $0.elapsed = elapsed }
    }
}
