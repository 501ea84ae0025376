import Firecracker
import LinuxSystem
import Logging
import Synchronization

/// A Firecracker process of this host that one agent, and no other, stops and starts.
final class FirecrackerHost: Sendable {
    let api: FirecrackerAPI
    let watched: WatchedProcess
    /// Two agents would move the same microVM to two places.
    private let lock: ProcessLock
    private let watch = ThreadGroup()
    private let logger: Logger
    private let care = Mutex(Care())

    /// Who sees to the microVM if this process ends.
    private struct Care {
        var keepers: [MicroVMKeeper.Deed: MicroVMKeeper] = [:]
        var isAbandoned = false
    }

    /// Finds the process that listens at an API socket.
    init(at socketPath: String, logger: Logger) throws {
        self.logger = logger
        api = FirecrackerAPI(socketPath: socketPath)
        let process: PeerProcess
        do {
            process = try PeerProcess(peerOf: StreamSocket(connectingTo: SocketAddress("unix:\(socketPath)")))
        } catch {
            throw MicroVMError(
                "no Firecracker answers at \(socketPath), start one with --api-sock, as this user: \(error)"
            )
        }
        if let user = process.user, user != PeerProcess.ownUser {
            throw MicroVMError(
                "the microVM at \(socketPath) runs as another user, which cannot open what this one gives it; start the "
                    + "agent as the user \(user)"
            )
        }
        do {
            lock = try ProcessLock(of: process)
        } catch {
            throw MicroVMError(
                "an agent must have the microVM at \(socketPath) for itself: \(error); if that is an agent, give migrate its "
                    + "control socket as --source"
            )
        }
        watched = try WatchedProcess(process, name: "the microVM at \(socketPath)")
    }

    deinit {
        watched.leave()
        watch.join()
    }

    /// How it is called in messages.
    var name: String { watched.name }

    /// Begins to look whether the process ends.
    func watchEnd() throws(SystemError) {
        guard watch.count == 0 else { return }
        try watch.run("microvm") { [watched] in watched.waitForEnd() }
    }

    // MARK: Stopping and starting

    /// For how long a resume is tried, in nanoseconds: longer than Firecracker itself tries one.
    private static let patience: UInt64 = 60_000_000_000

    /// Lets the microVM go on where nobody else may run it: a failure that may pass is not the end of it.
    ///
    /// - Throws: if it has ended, or still stands still.
    func resume() throws {
        guard try MicroVMKeeper.resume(api, watched.process, for: FirecrackerHost.patience) else {
            throw MicroVMError("\(name) has ended")
        }
    }

    /// Lets a microVM that has come run for the first time here.
    ///
    /// What may have executed something has started, though it may have ended with that: it is killed when Firecracker
    /// does not say that it runs, since some of its processors might, now or later.
    ///
    /// - Throws: if it executed nothing, and never will by this call.
    func start() throws {
        guard !watched.process.hasEnded else { throw MicroVMError("\(name) has ended") }
        do {
            try api.resume()
        } catch  where !error.wasSent {
            throw error
        } catch {
            logger.error("\(name) may have run for a moment, and is killed: \(error)")
            kill()
            watched.waitUntilEnded()
        }
    }

    /// Stops the microVM's processors.
    ///
    /// - Throws: if they run on, or one of them does.
    func pause() throws(FirecrackerError) {
        try api.pause()
    }

    /// Ends the process at once.
    func kill() {
        // It takes this from its own user.
        try? watched.process.send(.kill)
    }

    // MARK: Without this process

    /// Has something done to the microVM if this process ends before ``letGo(_:)``.
    ///
    /// - Parameter file: what is removed too then; nil for nothing.
    /// - Throws: also when it is abandoned already.
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
        throw MicroVMError("\(name) is not needed any more")
    }

    /// Whether something would be done.
    func isKept(_ deed: MicroVMKeeper.Deed) -> Bool {
        care.withLock { $0.keepers[deed] != nil }
    }

    /// From now on it is not.
    func letGo(_ deed: MicroVMKeeper.Deed) {
        care.withLock { $0.keepers.removeValue(forKey: deed) }?.letGo()
    }

    /// Ends what was loaded and is never to run here. A process that has loaded nothing is left, and loads nothing.
    func abandon() {
        let hasLoaded = care.withLock { care in
            care.isAbandoned = true
            return care.keepers[.kill] != nil
        }
        guard hasLoaded else { return }
        logger.notice("\(name) has loaded what does not run here, and is killed")
        kill()
        letGo(.kill)
    }
}
