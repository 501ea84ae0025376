import Glibc
import Synchronization

/// Who resolves faults of its own memory on the thread that raised them: a userfaultfd with the feature SIGBUS raises
/// that signal instead of an event, and so does a page of a mapped file that the file has no longer.
public protocol BusFaultResolver: AnyObject, Sendable {
    /// Whether an address lies in its memory. Called on any thread, in a signal handler.
    func owns(_ address: UInt64) -> Bool

    /// Returns once the page that holds an address is there. Called on the thread that touched it, in a signal handler:
    /// that thread holds no lock but those of whoever touches such memory.
    func resolve(_ address: UInt64)
}

/// Those of this process. A thread that takes the lock touches no such memory while it holds it, so that its handler
/// never waits for itself.
private let resolvers = Mutex<[any BusFaultResolver]>([])

/// The resolvers of this process.
public enum BusFaults {
    /// From now on a resolver is asked, and this process handles SIGBUS. One that somebody sends is ignored from then on.
    public static func add(_ resolver: any BusFaultResolver) {
        resolvers.withLock { $0.append(resolver) }
        // Each time: another part of the process may have taken the signal.
        handle()
    }

    /// From now on a resolver is no longer asked: its memory is complete.
    public static func remove(_ resolver: any BusFaultResolver) {
        resolvers.withLock { resolvers in resolvers.removeAll { $0 === resolver } }
    }

    private static func handle() {
        var action = sigaction()
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER
        action.__sigaction_handler.sa_sigaction = { _, information, _ in
            // What another process or thread sends (kill, sigqueue) carries no address, and is no fault of anybody's.
            guard let code = information?.pointee.si_code, code > 0 else { return }
            let raw = information?.pointee._sifields._sigfault.si_addr
            let address = UInt64(UInt(bitPattern: raw))
            // Of two, the older one's memory is gone and its addresses were used again.
            let owner = resolvers.withLock { resolvers in resolvers.last { $0.owns(address) } }
            guard let owner else {
                // Not ours: the access is tried again and ends the process, as an access does without a handler.
                var action = sigaction()
                action.__sigaction_handler.sa_handler = SIG_DFL
                _ = sigaction(SIGBUS, &action, nil)
                return
            }
            let errno = Glibc.errno
            owner.resolve(address)
            Glibc.errno = errno
        }
        let result = sigaction(SIGBUS, &action, nil)
        precondition(result == 0, "SIGBUS can always be handled")
    }
}
