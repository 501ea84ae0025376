import Guest
import LinuxSystem
import Synchronization

/// The workload's clock: nanoseconds that the workload has run on all hosts.
///
/// The clock stands still while the workload is stopped, and never goes backwards.
final class ClockDevice: Device {
    let name = "clock"

    private struct State {
        var elapsed: UInt64 = 0
        /// When the clock was started, of ``MonotonicClock``; nil while the clock stands still.
        var started: UInt64?
    }

    private let state = Mutex(State())

    /// The time that the clock shows, in nanoseconds.
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
        // The bound is 292 years, so that later additions cannot overflow.
        let elapsed: UInt64 = try reader.next(in: 0...(1 << 63 - 1)) { "the clock shows \($0) ns" }
        try reader.finish()
        self.state.withLock { $0.elapsed = elapsed }
    }
}
