#if DEBUG
import Synchronization
package import SystemPackage

/// Makes calls fail on purpose in debug builds, so that tests reach errors that a healthy kernel does not report.
package enum ForcedErrno {
    /// Decides before a call which errno it fails with; nil lets the call through.
    ///
    /// The call waits until the judge returns.
    package typealias Judge = @Sendable (SystemCall) -> Errno?

    private final class Pending: Sendable {
        let errnos: Mutex<[SystemCall: [Errno]]>
        init(_ errnos: [SystemCall: [Errno]]) { self.errnos = Mutex(errnos) }

        func take(_ call: SystemCall) -> Errno? {
            errnos.withLock { errnos in
                guard let first = errnos[call]?.first else { return nil }
                errnos[call]?.removeFirst()
                return first
            }
        }
    }

    @TaskLocal private static var judge: Judge?
    /// Saves a program that forces nothing the lookup of the task-local value at each call.
    private static let armed = Atomic<Bool>(false)

    /// Runs `body` with its next calls of each kind failing with the given errnos, in order.
    ///
    /// Other threads and tasks are not affected.
    package static func with<Value>(_ errnos: [SystemCall: [Errno]], _ body: () throws -> Value) rethrows -> Value {
        let pending = Pending(errnos)
        return try asking({ pending.take($0) }, body)
    }

    /// Runs `body`, and asks `judge` before each of its calls.
    ///
    /// Calls that `judge` makes itself are let through. Other threads and tasks are not affected.
    package static func asking<Value>(_ judge: @escaping Judge, _ body: () throws -> Value) rethrows -> Value {
        armed.store(true, ordering: .releasing)
        return try $judge.withValue(judge, operation: body)
    }

    static func take(_ call: SystemCall) -> Errno? {
        guard armed.load(ordering: .acquiring), let judge else { return nil }
        return $judge.withValue(nil) { judge(call) }
    }
}
#endif
