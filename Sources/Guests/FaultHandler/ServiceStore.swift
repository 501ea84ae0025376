package import LinuxSystem
package import Logging
import Synchronization

/// The userfaultfds that the service manager keeps for the next handler, in its descriptor store.
package final class ServiceStore: Sendable {
    /// The beginning of the names of userfaultfds.
    package static let prefix = "guest-"

    /// The manager; nil if it keeps nothing.
    private let manager: ServiceManager?
    private let given: Mutex<[String: ServiceSockets.Named]>
    private let logger: Logger

    /// Takes what the manager has kept for this process.
    package init(_ manager: ServiceManager?, given: [ServiceSockets.Named], logger: Logger) {
        self.manager = manager
        self.given = Mutex(Dictionary(given.map { ($0.name, $0) }) { first, _ in first })
        self.logger = logger
    }

    /// Drops what the manager has kept of memory that is gone, and names what belongs to no guest.
    ///
    /// - Parameter known: the names of the guests that are adopted.
    func keep(only known: [String]) {
        let known = Set(known)
        for (name, descriptor) in given.withLock(\.self) where !known.contains(name) {
            // Anything but a userfaultfd stays open, as a userfaultfd does whose memory is in use.
            if let userfaultfd = try? descriptor.userfaultfd(serving: .eventRemove), userfaultfd.isMemoryGone {
                remove(name)
            } else {
                logger.warning("'\(name)' of the service manager is kept open, and nothing serves it")
            }
        }
    }

    /// What the manager has kept under a name, if it is the userfaultfd with this inode.
    func userfaultfd(_ name: String, _ inode: UInt64) -> Userfaultfd? {
        guard let descriptor = given.withLock({ $0[name] }) else { return nil }
        do {
            let userfaultfd = try descriptor.userfaultfd(serving: .eventRemove)
            if try userfaultfd.inode == inode { return userfaultfd }
            logger.error("'\(name)' of the service manager is not used: it is the userfaultfd of another process")
        } catch {
            logger.error("'\(name)' of the service manager is not used: \(error)")
        }
        return nil
    }

    /// Whether the manager has kept a userfaultfd under a name whose memory is in use.
    func isInUse(_ name: String) -> Bool {
        guard let descriptor = given.withLock({ $0[name] }),
            // Anything but a userfaultfd belongs to no memory.
            let userfaultfd = try? descriptor.userfaultfd(serving: .eventRemove)
        else { return false }
        return !userfaultfd.isMemoryGone
    }

    func add(_ userfaultfd: borrowing Userfaultfd, as name: String) {
        tell { manager throws(SystemError) in try manager.store(userfaultfd, as: name) }
    }

    func remove(_ name: String) {
        given.withLock { $0[name] = nil }
        tell { manager throws(SystemError) in try manager.remove(name) }
    }

    private func tell(_ body: (ServiceManager) throws(SystemError) -> Void) {
        guard let manager else { return }
        do throws(SystemError) {
            try body(manager)
        } catch {
            // The guest is served all the same, and its process has a copy.
            logger.warning("\(error)")
        }
    }
}
