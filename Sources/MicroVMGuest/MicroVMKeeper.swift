import Firecracker
public import LinuxSystem
public import Logging

/// Sees to a microVM if this process ends while only it knows what is to become of the microVM.
///
/// A process of its own waits for that: this one may be killed at any moment.
public final class MicroVMKeeper: Sendable {
    /// What is done to the microVM then.
    public enum Deed: String, Sendable {
        /// It is killed: its pages cannot be had any more, or it may run elsewhere.
        case kill
        /// It goes on: it runs nowhere else.
        case resume
    }

    /// The command of this program that is one: `--log-level LEVEL DEED PROCESS API-SOCKET [FILE]`.
    public static let command = "microvm-keeper"
    private static let lettingGo: [UInt8] = [1]
    private static let pause: UInt64 = 100_000_000

    private let socket: SharedSocket
    private let worker: Handover<WorkerProcess>

    /// - Parameter file: what is removed too if this process ends; nil for nothing.
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
        // Until it has done what is to be done, no other agent takes the microVM.
        try gifts.add(lock)
        let arguments =
            [
                MicroVMKeeper.command, "--log-level", "\(logLevel)", deed.rawValue, "\(watched.process.id)", socketPath,
            ] + (file.map { [$0] } ?? [])
        worker = Handover(try WorkerProcess(arguments, giving: gifts, isDeaf: true))
        socket = ours
    }

    /// Leaves the microVM to itself. The keeper has ended when this returns.
    func letGo() {
        // A keeper whose microVM has ended is gone already.
        try? socket.stream.send(MicroVMKeeper.lettingGo)
        socket.stream.shutdown()
        _ = try? worker.take()?.waitForEnd()
    }

    /// What the keeper's process does, until it is not needed any more.
    public static func run(
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
        // Also after the microVM has: it may be killed for the agent's end.
        var word = [UInt8](repeating: 0, count: 1)
        guard try word.withUnsafeMutableBytes({ try socket.stream.receive(into: $0) }) == 0 else { return }
        // It is there only while the snapshot loads.
        if let file { SocketFile.remove(file) }
        guard !process.hasEnded else { return }
        let name = "the microVM at \(socketPath) (process \(id))"
        switch deed {
        case .kill:
            try process.send(.kill)
            logger.error("\(name) is killed: the agent that it needs has ended")
        case .resume:
            guard try resume(FirecrackerAPI(socketPath: socketPath), process, for: .max) else { return }
            logger.error("\(name) goes on here: the agent that was to move it has ended")
        }
    }

    /// Has a microVM go on that may run here, and tries again what fails: Firecracker may be making a snapshot, or some of
    /// its processors are slow.
    ///
    /// - Parameter nanoseconds: for how long it is tried.
    /// - Returns: false if it has ended.
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
                    // A request that was given up here may have been carried out since.
                    if (try? api.instance())?.state == .running { return true }
                    throw error
                }
                MonotonicClock.sleep(nanoseconds: MicroVMKeeper.pause)
            }
        }
        return false
    }
}
