import Firecracker
package import LinuxSystem
package import Logging

/// A child process that kills or resumes a microVM if this process dies while it is responsible for the microVM.
///
/// The keeper must be another process, since this one may be killed at any moment.
package final class MicroVMKeeper: Sendable {
    /// What the keeper does to the microVM if this process dies.
    package enum Deed: String, Sendable {
        /// Kills the microVM, whose missing pages only this process could fetch, or which may run elsewhere.
        case kill
        /// Resumes the microVM, which runs nowhere else.
        case resume
    }

    /// The subcommand that the keeper runs: `--log-level LEVEL DEED PROCESS API-SOCKET [FILE]`.
    package static let command = "microvm-keeper"
    private static let lettingGo: [UInt8] = [1]
    private static let pause: UInt64 = 100_000_000

    private let socket: SharedSocket
    private let worker: Handover<WorkerProcess>

    /// Starts a keeper.
    ///
    /// - Parameter file: a socket file that the keeper also removes if this process dies; nil for none.
    init(
        _ deed: Deed,
        of watched: WatchedProcess,
        _ lock: borrowing ProcessLock,
        _ socketPath: String,
        removing file: String?,
        logLevel: Logger.Level
    ) throws {
        let (ours, theirs) = try StreamSocket.pair()
        var gifts = WorkerProcess.Gifts()
        try gifts.add(watched.process)
        try gifts.add(theirs.stream)
        // The keeper shares the lock, so that no other agent takes the microVM before the keeper has acted.
        try gifts.add(lock)
        let arguments =
            [
                MicroVMKeeper.command, "--log-level", "\(logLevel)", deed.rawValue, "\(watched.process.id)", socketPath,
            ] + (file.map { [$0] } ?? [])
        worker = Handover(try WorkerProcess(arguments, giving: gifts, isDeaf: true))
        socket = ours
    }

    /// Disarms the keeper, whose process has exited when this returns.
    func letGo() {
        // Sending fails only if the keeper has already exited.
        try? socket.stream.send(MicroVMKeeper.lettingGo)
        socket.stream.shutdown()
        // Waiting fails only for a process that was already waited for.
        _ = try? worker.take()?.waitForEnd()
    }

    /// Runs in the keeper's process, until the agent disarms the keeper or dies.
    ///
    /// - Throws: `HandedDescriptorError` if an inherited descriptor is missing, `SystemError` if the microVM cannot be
    ///   killed, `FirecrackerError` if it cannot be resumed.
    package static func run(
        _ deed: Deed,
        process id: Int32,
        at socketPath: String,
        removing file: String?,
        _ inherited: consuming Inherited,
        logger: Logger
    ) throws {
        let process = try inherited.process(id)
        let socket = SharedSocket(try inherited.socket(to: "the agent"))
        _ = process.waitForEnd(orHangUpOf: socket, or: try EventDescriptor())
        // Waits for the agent even if the microVM has ended: it may have been killed because the agent died, and then
        // the file must still be removed.
        var word = [UInt8](repeating: 0, count: 1)
        guard try word.withUnsafeMutableBytes({ try socket.stream.receive(into: $0) }) == 0 else { return }
        // The file exists only while the snapshot loads.
        if let file { SocketFile.remove(file) }
        guard !process.hasEnded else { return }
        let name = "the microVM at \(socketPath) (process \(id))"
        switch deed {
        case .kill:
            try process.send(.kill)
            logger.error("\(name) was killed: its agent exited before every page had arrived")
        case .resume:
            guard try resume(FirecrackerAPI(socketPath: socketPath), process, for: .max) else { return }
            logger.error("\(name) was resumed here: the agent that was moving it has exited")
        }
    }

    /// Resumes a microVM that may run here, and retries after a failure.
    ///
    /// A resume fails while Firecracker is making a snapshot, or if a vCPU does not answer in time.
    ///
    /// - Parameter nanoseconds: the time after which a failure is final.
    /// - Returns: false if the process has ended.
    /// - Throws: the last failure, once that time is over.
    static func resume(
        _ api: FirecrackerAPI,
        _ process: borrowing PeerProcess,
        for nanoseconds: UInt64
    ) throws(FirecrackerError) -> Bool {
        let begin = MonotonicClock.now()
        while !process.hasEnded {
            do throws(FirecrackerError) {
                try api.resume()
                return true
            } catch {
                guard MonotonicClock.now() - begin < nanoseconds || process.hasEnded else {
                    // Firecracker may have carried out a request after this process had stopped waiting for it.
                    if (try? api.instance())?.state == .running { return true }
                    throw error
                }
                MonotonicClock.sleep(nanoseconds: MicroVMKeeper.pause)
            }
        }
        return false
    }
}
