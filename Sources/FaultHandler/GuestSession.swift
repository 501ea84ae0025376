import Attachments
import Foundation
import LinuxSystem
import Logging

/// Has one guest served until it has ended, by one worker after the other.
///
/// It keeps the guest's userfaultfd, and all that a worker knows: when a worker dies, another goes on.
struct GuestSession: ~Copyable {
    /// Seconds that a worker lives at least for its being killed to say nothing of the next.
    private static let longLife = 1.0
    /// Seconds until another worker is tried where they end without having served.
    private static let pause = 0.1

    private let guest: FirecrackerGuest
    private let task: GuestTask
    private let logger: Logger
    private var state: State?
    /// Since when workers have ended without having served anything.
    private var failingSince: UInt64?
    private var resident = 0
    private var lastWorker: Int32 = 0

    /// What outlives the workers.
    private final class State {
        let file: MemoryFile
        let memory: SessionMemory

        init(of task: GuestTask) throws(SystemError) {
            let file = try MemoryFile(name: "pageferry-session", byteCount: SessionMemory.byteCount(for: task))
            memory = try SessionMemory(file, of: task)
            self.file = file
        }
    }

    init(_ guest: consuming FirecrackerGuest, at address: SocketAddress, _ settings: HandlerSettings, logger: Logger) {
        task = GuestTask(guest, at: "\(address)", settings)
        self.guest = guest
        self.logger = logger
        let bytes = task.regions.reduce(0) { $0 + $1.range.byteCount }
        logger.notice("\(task.name) has attached with \(bytes) bytes, to be served by \(settings.source)")
    }

    /// Returns when the guest has ended or is lost.
    mutating func run() {
        while !guest.process.hasEnded {
            let begin = MonotonicClock.now()
            var isKilled = false
            do {
                switch try serve() {
                case .exited(Int(GuestService.End.done.rawValue)), .exited(Int(GuestService.End.lost.rawValue)): return
                case .exited(let status):
                    logger.error("worker \(lastWorker) of \(task.name) has ended with status \(status)")
                case .killed(let signal):
                    isKilled = signal == SIGKILL || signal == SIGTERM
                    logger.error("worker \(lastWorker) of \(task.name) was killed by signal \(signal)")
                }
            } catch {
                logger.error("\(task.name) has no worker: \(error)")
            }
            let lived = Double(MonotonicClock.now() - begin) / 1e9
            guard goesOn(since: begin, wasFine: isKilled && lived >= GuestSession.longLife) else { return }
        }
    }

    /// Lets a worker serve, and tells how it ended.
    private mutating func serve() throws -> ChildProcess.End {
        let state = try self.state ?? State(of: task)
        self.state = state
        // Not among the arguments, which every user of the host can read.
        let bytes = Array(try JSONEncoder().encode(task))
        let taskFile = try MemoryFile(name: "pageferry-task", byteCount: bytes.count)
        try taskFile.write(bytes)
        var gifts = WorkerProcess.Gifts()
        try gifts.add(taskFile)
        try gifts.add(guest.userfaultfd)
        try gifts.add(state.file)
        try gifts.add(guest.process)
        try gifts.add(guest.socket.stream)
        let worker = try WorkerProcess(["attach-worker", "--log-level", "\(logger.logLevel)"], giving: gifts)
        lastWorker = worker.id
        logger.info("worker \(worker.id) serves \(task.name)")
        return try worker.waitForEnd()
    }

    /// Whether another worker is to be tried; if not, the guest is lost.
    ///
    /// - Parameter wasFine: whether the last one's end says nothing of the next.
    private mutating func goesOn(since begin: UInt64, wasFine: Bool) -> Bool {
        let before = resident
        resident = state?.memory.countResident(of: task) ?? 0
        guard !wasFine, resident == before else {
            failingSince = nil
            logger.notice("another worker takes \(task.name) up")
            return true
        }
        let since = failingSince ?? begin
        failingSince = since
        if Double(MonotonicClock.now() - since) / 1e9 >= task.settings.giveUpSeconds, !lose() { return false }
        MonotonicClock.sleep(nanoseconds: UInt64(GuestSession.pause * 1e9))
        logger.notice("another worker takes \(task.name) up")
        return true
    }

    /// Does to the guest what is to be done when it cannot be served.
    ///
    /// - Returns: whether workers are tried on: the next that serves lets it go on.
    private func lose() -> Bool {
        let what = "\(task.name) cannot be served, since its workers end"
        do throws(SystemError) {
            switch (task.settings.onLost, state) {
            case (.hold, let state?):
                guard !state.memory.isHeld else { return true }
                state.memory.isHeld = true
                try guest.process.send(.stop)
                logger.error("\(what); it is stopped")
                return true
            case (.hold, nil):
                try guest.process.send(.stop)
                logger.error("\(what); it is stopped")
            case (.kill, _):
                try guest.process.send(.kill)
                logger.error("\(what); it is killed")
            }
        } catch {
            logger.error("\(what), and \(error)")
        }
        return false
    }
}
