import Guest
import LinuxSystem
import Synchronization

/// A program that prepares a host before the workload starts there, and undoes that after the workload stopped.
///
/// The program runs as `PATH start WORKLOAD` and `PATH undo WORKLOAD`. A failed start is undone too, since it may have
/// done part of its work. A failed undo is reported, and run again by the next release.
final class HookDevice: Device {
    let name: String
    private let path: String
    private let workload: String
    private let seconds: UInt64
    private let undoSeconds: UInt64
    /// Relaxed: calls come from one thread at a time, and their caller orders them.
    private let state = Atomic<State>(.undone)

    private enum State: UInt8, AtomicRepresentable {
        /// The host is as it was before the first start.
        case undone
        case started
        /// A start or an undo has not succeeded, and the host may be partly prepared. Either may be run next.
        case halfway
    }

    /// Makes a device that runs a program, for whose `start` and `undo` the workload stands still.
    ///
    /// - Parameters:
    ///   - seconds: the time limit of a start.
    ///   - undoSeconds: the additional time limit of an undo. The undo of a failed start also has the time that the
    ///     start left of its limit; any other undo has both limits together.
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
        // If the program cannot be run, nothing needs to be undone.
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

    /// Waits for the program's end, and kills the program if it does not end in time.
    ///
    /// - Throws: ``DeviceError`` unless the program exited with status 0, with the first line of its standard error.
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
            case .exited(let status) where errors.isEmpty:
                "ended with status \(status) and gave no reason on standard error; run it by hand: \(path) \(verb) \(workload)"
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
