import Firecracker
public import LinuxSystem
public import Logging

/// Sees to a microVM if this process ends while only it knows what is to become of the microVM.
///
/// A process of its own waits for that: this one may be killed at any moment.
public final class MicroVMKeeper: Sendable {
    /// What is done to the microVM then.
    public enum Care: String, Sendable {
        /// It is killed: its pages cannot be had any more, or it may run elsewhere.
        case kill
        /// It goes on: it runs nowhere else.
        case resume
    }

    /// The command of this program that is one: `--log-level LEVEL CARE PROCESS API-SOCKET`.
    public static let command = "microvm-keeper"
    private static let lettingGo: [UInt8] = [1]
    private static let pause: UInt64 = 100_000_000

    private let socket: SharedSocket
    private let worker: Handover<WorkerProcess>

    init(_ care: Care, of host: FirecrackerHost, logLevel: Logger.Level) throws {
        let (ours, theirs) = try StreamSocket.pair()
        var gifts = WorkerProcess.Gifts()
        try gifts.add(host.watched.process)
        try gifts.add(theirs.stream)
        let arguments = [
            MicroVMKeeper.command, "--log-level", "\(logLevel)", care.rawValue, "\(host.watched.process.id)",
            host.api.socketPath,
        ]
        worker = Handover(try WorkerProcess(arguments, giving: gifts))
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
        _ care: Care,
        process id: Int32,
        at socketPath: String,
        _ inherited: consuming Inherited,
        logger: Logger
    ) throws {
        let process = try inherited.process(id)
        let socket = SharedSocket(try inherited.socket(to: "the agent"))
        _ = process.waitForEnd(orHangUpOf: socket, or: try EventDescriptor())
        guard !process.hasEnded else { return }
        var word = [UInt8](repeating: 0, count: 1)
        guard try word.withUnsafeMutableBytes({ try socket.stream.receive(into: $0) }) == 0 else { return }
        let name = "the microVM at \(socketPath) (process \(id))"
        switch care {
        case .kill:
            try process.send(.kill)
            logger.error("\(name) is killed: the agent that it needs has ended")
        case .resume:
            try resume(FirecrackerAPI(socketPath: socketPath), process)
            logger.error("\(name) goes on here: the agent that was to move it has ended")
        }
    }

    private static func resume(_ api: FirecrackerAPI, _ process: borrowing PeerProcess) throws(FirecrackerError) {
        while true {
            do throws(FirecrackerError) {
                return try api.resume()
            } catch {
                guard error.status == nil, !process.hasEnded else { throw error }
                // It may be making a snapshot, and answer later.
                MonotonicClock.sleep(nanoseconds: MicroVMKeeper.pause)
            }
        }
    }
}
