#if DEBUG
import Synchronization
package import SystemPackage

/// Makes calls fail on purpose, in debug builds: how tests reach the errors that a healthy kernel does not give.
package enum ForcedErrno {
    /// Asked before a call: the errno that it is to fail with, or nil to let it be made. Until it returns, the call waits.
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
    /// Spares a program that forces nothing the search for the task's value at each call.
    private static let armed = Atomic<Bool>(false)

    /// Runs `body` with the next of its calls to each of these failing with the errnos given, in order. Other threads
    /// and tasks notice nothing.
    package static func with<Value>(_ errnos: [SystemCall: [Errno]], _ body: () throws -> Value) rethrows -> Value {
        let pending = Pending(errnos)
        return try asking({ pending.take($0) }, body)
    }

    /// Runs `body` with each of its calls being put to `judge`, whose own calls are made. Other threads and tasks notice
    /// nothing.
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
