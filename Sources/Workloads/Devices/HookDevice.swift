import Guest
import LinuxSystem
import Synchronization

/// A program that makes a host ready for the workload before it starts there, and makes it undone after it stopped.
///
/// It is called as `PATH start WORKLOAD` and `PATH undo WORKLOAD`. A start that fails is undone too, since it may have
/// come half way. An undo that fails is reported, and called again by the next release.
final class HookDevice: Device {
    let name: String
    private let path: String
    private let workload: String
    private let seconds: UInt64
    private let undoSeconds: UInt64
    /// Relaxed: the calls come from one thread at a time, ordered by whoever makes them.
    private let state = Atomic<State>(.undone)

    private enum State: UInt8, AtomicRepresentable {
        /// The host is as it was before the first start.
        case undone
        case started
        /// A start or an undo has begun and not succeeded: the host may be half made ready. Either may be called.
        case halfway
    }

    /// The workload stands still while its start is called, and while that is undone.
    ///
    /// - Parameters:
    ///   - seconds: how long a start may take.
    ///   - undoSeconds: how long the undo of a start may take that has used up its time. Of what a start leaves of its time
    ///     its undo has the rest too, and an undo that is called by itself has as long as both.
    init(name: String = "hook", path: String, workload: String, seconds: UInt64 = 25, undoSeconds: UInt64 = 5) {
        self.name = name
        self.path = path
        self.workload = workload
        self.seconds = seconds
        self.undoSeconds = undoSeconds
    }

    func save() -> [UInt8] { [] }

    func load(_ state: [UInt8]) throws { try StateReader(state, of: name).finish() }

    func acquire() throws(DeviceError) {
        guard state.load(ordering: .relaxed) != .started else { return }
        // A program that cannot be run has changed nothing.
        let process = try begin("start")
        let since = MonotonicClock.now()
        state.store(.halfway, ordering: .relaxed)
        do throws(DeviceError) {
            try finish(process, "start", within: seconds)
        } catch {
            do throws(DeviceError) {
                let used = min(seconds, (MonotonicClock.now() - since) / 1_000_000_000)
                try undo(within: seconds + undoSeconds - used)
            } catch let undo {
                throw DeviceError(device: name, reason: "\(error.reason); \(undo.reason)")
            }
            throw error
        }
        state.store(.started, ordering: .relaxed)
    }

    func release() throws(DeviceError) {
        guard state.load(ordering: .relaxed) != .undone else { return }
        try undo(within: seconds + undoSeconds)
    }

    private func undo(within seconds: UInt64) throws(DeviceError) {
        state.store(.halfway, ordering: .relaxed)
        try finish(try begin("undo"), "undo", within: seconds)
        state.store(.undone, ordering: .relaxed)
    }

    private func begin(_ verb: String) throws(DeviceError) -> ChildProcess {
        do throws(SystemError) {
            return try ChildProcess(path, [verb, workload])
        } catch {
            throw DeviceError(device: name, reason: "\(error)")
        }
    }

    /// Waits for the program's end. One that does not end in time is killed.
    private func finish(
        _ process: consuming ChildProcess,
        _ verb: String,
        within seconds: UInt64
    ) throws(DeviceError) {
        let (end, errors): (ChildProcess.End?, [UInt8])
        do throws(SystemError) {
            (end, errors) = try process.wait(milliseconds: seconds * 1000)
        } catch {
            throw DeviceError(device: name, reason: "\(error)")
        }
        let outcome =
            switch end {
            case .exited(status: 0): nil as String?
            case .exited(let status): "ended with status \(status)"
            case .killed(let signal): "was ended by signal \(signal)"
            case nil: "did not end within \(seconds) s"
            }
        guard let outcome else { return }
        let line = errors.prefix { $0 != UInt8(ascii: "\n") }.prefix(512)
        let words = line.isEmpty ? "" : ": \(String(decoding: line, as: UTF8.self))"
        throw DeviceError(device: name, reason: "\(path) \(verb) \(outcome)\(words)")
    }
}
