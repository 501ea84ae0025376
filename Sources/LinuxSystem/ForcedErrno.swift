#if DEBUG
import Synchronization
package import SystemPackage

/// Makes calls fail on purpose, in debug builds: how tests reach the errors that a healthy kernel does not give.
package enum ForcedErrno {
    private static let armed = Atomic<Bool>(false)
    private static let pending = Mutex<[SystemCall: [Errno]]>([:])

    /// Runs `body` with the next calls of `call`, from any thread, failing with `errnos` in order.
    package static func with<Value>(_ call: SystemCall, _ errnos: [Errno], _ body: () throws -> Value) rethrows -> Value
    {
        pending.withLock { $0[call] = errnos }
        armed.store(true, ordering: .releasing)
        defer { pending.withLock { $0[call] = nil } }
        return try body()
    }

    static func take(_ call: SystemCall) -> Errno? {
        guard armed.load(ordering: .acquiring) else { return nil }
        return pending.withLock { pending in
            guard let errnos = pending[call], let first = errnos.first else { return nil }
            pending[call] = Array(errnos.dropFirst())
            return first
        }
    }
}
#endif
