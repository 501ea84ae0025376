#if DEBUG
import LinuxSystem
import Synchronization
import SystemPackage

/// The system calls of a piece of work, counted in order.
final class Calls: Sendable {
    private let made = Mutex<[SystemCall]>([])

    /// The system calls that `body` makes, in order.
    static func of(_ body: () throws -> Void) rethrows -> [SystemCall] {
        let calls = Calls()
        try ForcedErrno.asking({ call in
            _ = calls.next(call)
            return nil
        }) {
            try body()
        }
        return calls.made.withLock { $0 }
    }

    /// Runs `body`, and calls `judge` before its system call at index `place`, from 0.
    static func at<Value>(
        _ place: Int,
        _ judge: @escaping ForcedErrno.Judge,
        _ body: () throws -> Value
    ) rethrows -> Value {
        let calls = Calls()
        return try ForcedErrno.asking({ call in calls.next(call) == place ? judge(call) : nil }, body)
    }

    private func next(_ call: SystemCall) -> Int {
        made.withLock { made in
            made.append(call)
            return made.count - 1
        }
    }
}
#endif
