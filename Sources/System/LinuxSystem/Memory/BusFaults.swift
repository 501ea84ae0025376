import Glibc
import Synchronization

/// Resolves faults of its own memory on the thread that raised them.
///
/// A userfaultfd with the feature SIGBUS raises that signal instead of an event. A page of a mapped file that the file
/// no longer has raises it too.
package protocol BusFaultResolver: AnyObject, Sendable {
    /// Whether an address lies in the resolver's memory.
    ///
    /// Called in a signal handler, on any thread.
    func owns(_ address: UInt64) -> Bool

    /// Returns once the page that holds an address is present.
    ///
    /// Called in a signal handler, on the thread that touched the page. The only locks that this thread may hold are
    /// those of the code that touches such memory.
    func resolve(_ address: UInt64)
}

/// The resolvers of this process.
///
/// A thread that holds the lock touches no such memory, so its signal handler never waits for a lock that the thread
/// itself holds.
private let resolvers = Mutex<[any BusFaultResolver]>([])

/// The SIGBUS handler of this process, and the resolvers that it asks.
package enum BusFaults {
    /// Adds a resolver, and makes this process handle SIGBUS.
    ///
    /// A SIGBUS that a process sends is ignored from then on.
    package static func add(_ resolver: any BusFaultResolver) {
        resolvers.withLock { $0.append(resolver) }
        // Installed each time, since another part of the process may have replaced the handler.
        handle()
    }

    /// Removes a resolver, whose memory is complete.
    package static func remove(_ resolver: any BusFaultResolver) {
        resolvers.withLock { resolvers in resolvers.removeAll { $0 === resolver } }
    }

    private static func handle() {
        var action = sigaction()
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER
        action.__sigaction_handler.sa_sigaction = { _, information, _ in
            // A SIGBUS that a process or thread sends (kill, sigqueue) carries no address, and is not a fault.
            guard let code = information?.pointee.si_code, code > 0 else { return }
            let raw = information?.pointee._sifields._sigfault.si_addr
            let address = UInt64(UInt(bitPattern: raw))
            // If several resolvers own the address, the last one counts: the others' memory is gone, and its addresses
            // are in use again.
            let owner = resolvers.withLock { resolvers in resolvers.last { $0.owns(address) } }
            guard let owner else {
                // No resolver owns the address. The access is repeated, and ends the process as it would without a
                // handler.
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
