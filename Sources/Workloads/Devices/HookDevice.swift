import Guest
import LinuxSystem
import Synchronization

/// A program that makes a host ready for the workload before it starts there, and makes it undone after it stopped.
///
/// It is called as `PATH start WORKLOAD` and `PATH undo WORKLOAD`. A start that fails is undone too, since it may have
/// come half way.
final class HookDevice: Device {
    let name: String
    private let path: String
    private let workload: String
    private let seconds: UInt64
    /// Relaxed: the calls come from one thread at a time, ordered by whoever makes them.
    private let isStarted = Atomic<Bool>(false)

    /// - Parameter seconds: how long each call may take.
    init(name: String = "hook", path: String, workload: String, seconds: UInt64 = 30) {
        self.name = name
        self.path = path
        self.workload = workload
        self.seconds = seconds
    }

    func save() -> [UInt8] { [] }

    func load(_ state: [UInt8]) throws { try StateReader(state, of: name).finish() }

    func acquire() throws {
        guard !isStarted.exchange(true, ordering: .relaxed) else { return }
        do {
            try call("start")
        } catch {
            release()
            throw error
        }
    }

    func release() {
        guard isStarted.exchange(false, ordering: .relaxed) else { return }
        // The workload has stopped and goes on elsewhere, whatever is left here: nobody waits for a reason.
        try? call("undo")
    }

    private func call(_ verb: String) throws {
        let process = try ChildProcess(path, [verb, workload])
        let (end, errors) = try process.wait(milliseconds: seconds * 1000)
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
