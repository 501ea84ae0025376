import Firecracker
import LinuxSystem
import Logging
import Synchronization

/// A Firecracker process of this host that one agent alone stops and starts.
final class FirecrackerHost: Sendable {
    let api: FirecrackerAPI
    let watched: WatchedProcess
    /// Excludes other agents: two agents could move the same microVM to two places.
    private let lock: ProcessLock
    private let watch = ThreadGroup()
    private let logger: Logger
    private let care = Mutex(Care())

    /// The armed keepers.
    private struct Care {
        var keepers: [MicroVMKeeper.Deed: MicroVMKeeper] = [:]
        /// Whether the microVM will never run here, so that no further keeper may be armed.
        var isAbandoned = false
    }

    /// Finds the process that listens at an API socket, and locks it.
    ///
    /// - Throws: ``MicroVMError`` if nothing answers there, if the process has another user, or if another agent has
    ///   locked it.
    init(at socketPath: String, logger: Logger) throws {
        self.logger = logger
        api = FirecrackerAPI(socketPath: socketPath)
        let process: PeerProcess
        do {
            process = try PeerProcess(peerOf: StreamSocket(connectingTo: SocketAddress("unix:\(socketPath)")))
        } catch {
            throw MicroVMError(
                "no Firecracker answers at \(socketPath): \(error); start one there as this user, with --api-sock"
            )
        }
        if let user = process.user, user != PeerProcess.ownUser {
            throw MicroVMError(
                "the microVM at \(socketPath) runs as another user, which cannot open this agent's files; start the "
                    + "agent as the user \(user)"
            )
        }
        do {
            lock = try ProcessLock(of: process)
        } catch {
            throw MicroVMError(
                "an agent must have the microVM at \(socketPath) for itself: \(error); if another agent has it, give "
                    + "migrate that agent's control socket as --source"
            )
        }
        watched = try WatchedProcess(process, name: "the microVM at \(socketPath)")
    }

    deinit {
        watched.leave()
        watch.join()
    }

    /// The microVM's socket and process, for messages.
    var name: String { watched.name }

    /// Starts the thread that waits for the end of the process; a repeated call does nothing.
    func watchEnd() throws(SystemError) {
        guard watch.count == 0 else { return }
        try watch.run("microvm") { [watched] in watched.waitForEnd() }
    }

    /// Starts the thread that waits for the end of the process, or logs why it cannot be started.
    func watchEndIfPossible() {
        do throws(SystemError) {
            try watchEnd()
        } catch {
            logger.error("the end of \(name) will not be noticed: \(error)")
        }
    }

    // MARK: Stopping and starting

    /// Nanoseconds for which a failed resume is retried: longer than Firecracker itself tries one.
    private static let patience: UInt64 = 60_000_000_000

    /// Resumes a microVM that nobody else may run, with retries for up to 60 s.
    ///
    /// - Throws: ``MicroVMError`` if the process has ended, `FirecrackerError` if the last attempt failed too.
    func resume() throws {
        guard try MicroVMKeeper.resume(api, watched.process, for: FirecrackerHost.patience) else {
            throw MicroVMError("\(name) has ended")
        }
    }

    /// Starts a microVM that has arrived.
    ///
    /// If Firecracker does not confirm the resume, some vCPUs may already have run, or may run later. That counts as
    /// started, so the process is killed rather than left to run later.
    ///
    /// - Throws: if the microVM executed nothing, and never will because of this call.
    func start() throws {
        guard !watched.process.hasEnded else { throw MicroVMError("\(name) has ended") }
        do {
            try api.resume()
        } catch  where !error.wasSent {
            throw error
        } catch {
            logger.error("killing \(name), which may have run for a moment: \(error)")
            kill()
            watched.waitUntilEnded()
        }
    }

    /// Pauses the microVM's vCPUs.
    ///
    /// - Throws: if some vCPU may still run.
    func pause() throws(FirecrackerError) {
        try api.pause()
    }

    /// Kills the process.
    func kill() {
        // The signal cannot be refused: the process belongs to this user.
        try? watched.process.send(.kill)
    }

    // MARK: Without this process

    /// Arms a keeper that acts on the microVM if this process dies before ``letGo(_:)``.
    ///
    /// - Parameter file: a socket file that the keeper removes too; nil for none.
    /// - Throws: `SystemError` if the keeper cannot be started, ``MicroVMError`` if the microVM was abandoned.
    func keep(_ deed: MicroVMKeeper.Deed, removing file: String? = nil) throws {
        letGo(deed)
        let keeper = try MicroVMKeeper(
            deed,
            of: watched,
            lock,
            api.socketPath,
            removing: file,
            logLevel: logger.logLevel
        )
        let isAbandoned = care.withLock { care in
            if !care.isAbandoned { care.keepers[deed] = keeper }
            return care.isAbandoned
        }
        guard isAbandoned else { return }
        keeper.letGo()
        throw MicroVMError("\(name) is no longer needed: its migration has ended")
    }

    /// Whether a keeper is armed for `deed`.
    func isKept(_ deed: MicroVMKeeper.Deed) -> Bool {
        care.withLock { $0.keepers[deed] != nil }
    }

    /// Disarms the keeper for `deed`, if one is armed.
    func letGo(_ deed: MicroVMKeeper.Deed) {
        care.withLock { $0.keepers.removeValue(forKey: deed) }?.letGo()
    }

    /// Kills a Firecracker whose loaded microVM will never run here.
    ///
    /// A Firecracker that has loaded nothing is left alone, and this host loads nothing into it any more.
    func abandon() {
        let hasLoaded = care.withLock { care in
            care.isAbandoned = true
            return care.keepers[.kill] != nil
        }
        guard hasLoaded else { return }
        logger.notice("killing \(name), which has loaded a snapshot that will not run here")
        kill()
        letGo(.kill)
    }
}
