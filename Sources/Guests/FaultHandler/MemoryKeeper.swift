package import LinuxSystem
import Synchronization

/// Keeps the userfaultfds of guests that are not served and live on, so that their missing pages never read as zeros.
///
/// When the last copy of a userfaultfd is closed, the kernel lets the missing pages of its memory read as zeros. A
/// guest's own process may have none. Each guest's copies are therefore held by a process of their own, which outlives
/// this one and exits when the memory is gone. Nothing is read from them, since a guest may serve its faults itself.
package final class MemoryKeeper: Sendable {
    /// The subcommand that a keeping process runs: `COUNT`, the number of inherited userfaultfds.
    package static let command = "attach-keeper"
    /// The most guests of one user whose memory is kept, each of which takes a process.
    static let most = 16
    /// Milliseconds between two looks whether the memory is gone, which the kernel does not report.
    private static let interval: UInt64 = 500

    /// The threads that wait for keeping processes; this process exits without them.
    private static let threads = ThreadGroup()

    /// The number of keeping processes, by the user of the guests; nil for guests whose user is not known.
    private let counts = Mutex<[UInt32?: Int]>([:])

    /// Keeps copies of userfaultfds from now on.
    ///
    /// - Parameter user: the user of the guest's process.
    /// - Throws: ``ServiceFailure`` if as many guests of the user are kept as may be, `SystemError` if no process can be
    ///   started.
    func keep(_ copies: [SharedUserfaultfd], of user: UInt32?) throws {
        guard !copies.isEmpty else { return }
        guard counts.withLock({ $0[user, default: 0] }) < MemoryKeeper.most else {
            throw ServiceFailure(
                description: "\(MemoryKeeper.most) refused guests of its user wait for their memory already"
            )
        }
        var gifts = WorkerProcess.Gifts()
        for copy in copies { try gifts.add(copy.userfaultfd) }
        let worker = try WorkerProcess([MemoryKeeper.command, "\(copies.count)"], giving: gifts, isDeaf: true)
        let handover = Handover(worker)
        counts.withLock { $0[user, default: 0] += 1 }
        do throws(SystemError) {
            try MemoryKeeper.threads.run("keeper") { [self] in
                // Waiting fails only for a process that was already waited for.
                _ = try? handover.take()?.waitForEnd()
                counts.withLock { counts in
                    let rest = counts[user, default: 1] - 1
                    counts[user] = rest > 0 ? rest : nil
                }
            }
        } catch {
            // The process keeps the memory all the same, and counts until this process exits.
        }
    }

    /// Runs in a keeping process, until the memory is gone.
    ///
    /// - Throws: `HandedDescriptorError` if an inherited descriptor is missing or is no userfaultfd, `SystemError` if
    ///   it cannot be inspected.
    package static func run(_ count: Int, _ inherited: consuming Inherited) throws {
        var copies: [SharedUserfaultfd] = []
        for _ in 0..<count { copies.append(SharedUserfaultfd(try inherited.keptUserfaultfd())) }
        while true {
            copies.removeAll { $0.userfaultfd.isMemoryGone }
            guard !copies.isEmpty else { return }
            MonotonicClock.sleep(nanoseconds: interval * 1_000_000)
        }
    }
}
