#if DEBUG
import Synchronization
package import SystemPackage

/// Makes calls fail on purpose, in debug builds: how tests reach the errors that a healthy kernel does not give.
package enum ForcedErrno {
    private final class Pending: Sendable {
        let errnos: Mutex<[SystemCall: [Errno]]>
        init(_ errnos: [SystemCall: [Errno]]) { self.errnos = Mutex(errnos) }
    }

    @TaskLocal private static var pending: Pending?
    /// Spares a program that forces nothing the search for the task's value at each call.
    private static let armed = Atomic<Bool>(false)

    /// Runs `body` with the next of its calls to each of these failing with the errnos given, in order. Other threads
    /// and tasks notice nothing.
    package static func with<Value>(_ errnos: [SystemCall: [Errno]], _ body: () throws -> Value) rethrows -> Value {
        armed.store(true, ordering: .releasing)
        return try $pending.withValue(Pending(errnos), operation: body)
    }

    static func take(_ call: SystemCall) -> Errno? {
        guard armed.load(ordering: .acquiring), let pending else { return nil }
        return pending.errnos.withLock { errnos in
            guard let first = errnos[call]?.first else { return nil }
            errnos[call]?.removeFirst()
            return first
        }
    }
}
#endif
