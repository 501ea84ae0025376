import Attachments
import Foundation
import LinuxSystem
import Logging

/// Receives the report of a guest that is served no longer.
package typealias GuestReporter = @Sendable (EndedGuest) -> Void

/// Serves one guest until the guest has ended, with one worker process after the other.
///
/// The session keeps the guest's userfaultfd and the workers' state in a file, so that a new worker can continue when a
/// worker dies, and a new handler when this process dies.
struct GuestSession: ~Copyable {
    /// A worker killed after at least this many seconds does not count as a failed attempt.
    private static let longLife = 1.0
    /// Seconds between two workers after a failed attempt.
    private static let pause = 0.1
    /// Milliseconds between two looks at whether a worker still works.
    private static let lookInterval: Int32 = 1000

    private let userfaultfd: Userfaultfd
    /// The process that has handed over the memory; nil if it had ended before this handler adopted the guest.
    private let process: PeerProcess?
    /// The connection on which the guest was handed over; nil for an adopted guest.
    private let socket: SharedSocket?
    private let task: GuestTask
    private let store: GuestStore
    private let workers: ForkServer
    /// What a later handler must know; nil if /proc does not show the guest's process.
    private let record: GuestRecord?
    private let claim: PoolClaim?
    private let logger: Logger
    /// Shows the guest to operators, once its state can be read.
    private let show: @Sendable (GuestView) -> Void
    /// Receives the report of the guest at its end; nil if nobody wants it.
    private let report: GuestReporter?
    private var state: State?
    /// Whether the guest was held before ``state`` could be made.
    private var isHeld = false
    /// When the first of the latest failed attempts began, of `MonotonicClock`; nil if the latest did not fail.
    private var failingSince: UInt64?
    private var resident = 0
    private var lastWorker: Int32 = 0

    /// The state that outlives the workers.
    private final class State {
        let file: MemoryFile
        let memory: SessionMemory

        init(_ file: consuming MemoryFile, of task: GuestTask) throws {
            memory = try SessionMemory(file, of: task)
            self.file = file
        }
    }

    /// Makes the session of a guest that has just handed over its memory.
    static func of(
        _ guest: consuming FirecrackerGuest,
        at address: SocketAddress,
        _ settings: HandlerSettings,
        in store: GuestStore,
        _ workers: ForkServer,
        claiming claim: PoolClaim?,
        logger: Logger,
        reporting report: GuestReporter?,
        showing show: @escaping @Sendable (GuestView) -> Void
    ) -> GuestSession {
        let task = GuestTask(guest, at: "\(address)", settings)
        let logger = task.logger(of: logger)
        let socket = guest.socket
        let bytes = task.regions.reduce(0) { $0 + $1.range.byteCount }
        logger.notice("\(task.name) has attached with \(bytes) bytes, which \(settings.source) serves")
        if settings.onLost == .kill {
            do throws(SystemError) {
                try guest.process.send(.none)
            } catch {
                logger.warning("\(task.name) cannot be killed if it is lost, and would wait for its pages: \(error)")
            }
        }
        return guest.split {
            GuestSession(
                $0,
                $1,
                socket,
                task,
                in: store,
                workers,
                claiming: claim,
                logger: logger,
                reporting: report,
                showing: show
            )
        }
    }

    private init(
        _ userfaultfd: consuming Userfaultfd,
        _ process: consuming PeerProcess,
        _ socket: SharedSocket,
        _ task: GuestTask,
        in store: GuestStore,
        _ workers: ForkServer,
        claiming claim: PoolClaim?,
        logger: Logger,
        reporting report: GuestReporter?,
        showing show: @escaping @Sendable (GuestView) -> Void
    ) {
        // A descriptor of this process can always be inspected.
        if let birth = process.birth, let inode = try? userfaultfd.inode {
            record = GuestRecord(process: birth, of: process.user, userfaultfd: inode, task: task)
        } else {
            record = nil
            logger.warning("\(task.name) is not visible in /proc; if this handler dies, the guest waits for ever")
        }
        self.userfaultfd = userfaultfd
        self.process = .some(process)
        (self.socket, self.task, self.claim) = (socket, task, claim)
        (self.store, self.workers, self.logger, self.report, self.show) = (store, workers, logger, report, show)
    }

    /// Makes the session of a guest whose handler has died.
    init(
        adopting record: GuestRecord,
        _ userfaultfd: consuming Userfaultfd,
        _ process: consuming PeerProcess?,
        _ file: consuming MemoryFile,
        _ settings: HandlerSettings,
        in store: GuestStore,
        _ workers: ForkServer,
        claiming claim: PoolClaim?,
        logger: Logger,
        reporting report: GuestReporter?,
        showing show: @escaping @Sendable (GuestView) -> Void
    ) throws {
        let task = record.task.adopted(by: settings, hasEnded: process == nil)
        let logger = task.logger(of: logger)
        let state = try State(file, of: task)
        self.userfaultfd = userfaultfd
        self.process = process
        socket = nil
        (self.task, self.record, self.claim) = (task, record, claim)
        (self.store, self.workers, self.logger, self.report, self.show) = (store, workers, logger, report, show)
        let memory = state.memory
        claim?.subtract { memory.countResident(of: task) }
        resident = state.memory.countResident(of: task)
        let pages = task.regions.reduce(0) { $0 + $1.pageCount }
        logger.notice("\(task.name) was adopted with \(resident) of \(pages) pages; \(settings.source) serves the rest")
        self.state = state
        show(GuestView(task: task, memory: memory))
    }

    /// Serves the guest, and returns when it has ended or is lost.
    mutating func run() {
        let end = serveWithWorkers()
        if let record {
            do throws(SystemError) {
                try store.forget(GuestStore.Names(of: record.process))
            } catch {
                logger.error("the state of \(task.name) stays behind: \(error)")
            }
        }
        if end == .complete { logger.notice("\(task.name) needs its server and this handler no more") }
        if let report, let state {
            report(GuestView(task: task, memory: state.memory).ended(end))
        }
    }

    private mutating func serveWithWorkers() -> GuestService.End {
        // The memory of a process that has ended may be that of another process, for which it was a relay.
        while !userfaultfd.isMemoryGone {
            let begin = MonotonicClock.now()
            var isKilled = false
            do {
                switch try serve() {
                case .exited(Int(GuestService.End.done.rawValue)): return .done
                case .exited(Int(GuestService.End.lost.rawValue)): return .lost
                case .exited(Int(GuestService.End.complete.rawValue)): return .complete
                case .exited(let status):
                    logger.error("worker \(lastWorker) of \(task.name) exited with status \(status)")
                case .killed(let signal):
                    isKilled = signal == SIGKILL || signal == SIGTERM
                    logger.error("worker \(lastWorker) of \(task.name) was killed by signal \(signal)")
                }
            } catch {
                logger.error("\(task.name) has no worker: \(error)")
            }
            let lived = Double(MonotonicClock.now() - begin) / 1e9
            guard goesOn(since: begin, wasFine: isKilled && lived >= GuestSession.longLife) else { return .lost }
        }
        return .done
    }

    /// Starts a worker, and waits for its end.
    private mutating func serve() throws -> ChildProcess.End {
        let state = try self.state ?? makeState()
        if self.state == nil, isHeld { state.memory.isHeld = true }
        self.state = state
        // The task is not passed as arguments, which every user of the host can read.
        let bytes = Array(try JSONEncoder().encode(task))
        let taskFile = try MemoryFile(name: "pageferry-task", byteCount: bytes.count)
        try taskFile.write(bytes)
        var gifts = WorkerProcess.Gifts()
        try gifts.add(taskFile)
        try gifts.add(userfaultfd)
        try gifts.add(state.file)
        switch process {
        case .some(let process): try gifts.add(process)
        case .none: break
        }
        if let socket { try gifts.add(socket.stream) }
        // Written before the worker runs, which may set the word to 0 at once.
        state.memory.beat = MonotonicClock.now()
        let worker = try workers.start(as: ["pageferry-guest-\(task.process)"], giving: gifts)
        lastWorker = worker.id
        state.memory.workers += 1
        logger.info("worker \(worker.id) serves \(task.name)")
        endIfStuck(worker, state.memory)
        return try worker.waitForEnd()
    }

    /// Seconds without a sign of work after which a worker is taken for stuck.
    private var stuckAfter: Double { min(10, max(2, task.settings.giveUpSeconds / 2)) }

    /// Waits for the end of a worker, and kills a worker that is stuck: stopped by a signal, or in a call of the kernel.
    private mutating func endIfStuck(_ worker: borrowing WorkerProcess, _ memory: SessionMemory) {
        // Without a descriptor left, the session waits for the worker's end all the same.
        guard let watched = try? worker.process() else { return }
        let begin = MonotonicClock.now()
        var (isKilled, isLost) = (false, false)
        while !watched.waitForEnd(milliseconds: GuestSession.lookInterval) {
            let (now, beat) = (MonotonicClock.now(), memory.beat)
            // The start of the worker does not count.
            let since = max(begin, beat)
            let silence = Double(now - min(now, since)) / 1e9
            guard beat > 0, silence >= stuckAfter else { continue }
            if !isKilled {
                isKilled = true
                let time = Duration.seconds(silence).text
                logger.error("worker \(worker.id) of \(task.name) has done nothing for \(time); the worker is killed")
                // A child can always be signalled.
                try? watched.send(.kill)
            } else if !isLost {
                // A worker in a call of the kernel may not die.
                resident = memory.countResident(of: task)
                isLost = !lose(since: since, because: "its worker \(worker.id) is stuck and cannot be killed")
            }
        }
    }

    private func makeState() throws -> State {
        let file =
            if let record {
                try store.add(record, userfaultfd)
            } else {
                try MemoryFile(name: "pageferry-session", byteCount: SessionMemory.byteCount(for: task))
            }
        let state = try State(file, of: task)
        let (memory, task) = (state.memory, task)
        claim?.subtract { memory.countResident(of: task) }
        show(GuestView(task: task, memory: memory))
        return state
    }

    /// Decides, after a worker's end, whether to start another worker, and waits for the pause before it.
    ///
    /// - Parameters:
    ///   - begin: when the worker was started.
    ///   - wasFine: whether the worker's end does not count as a failed attempt.
    /// - Returns: false if the guest is lost.
    private mutating func goesOn(since begin: UInt64, wasFine: Bool) -> Bool {
        let before = resident
        resident = state?.memory.countResident(of: task) ?? 0
        guard !wasFine, resident == before else {
            failingSince = nil
            logger.notice("restarting the worker of \(task.name)")
            return true
        }
        let since = failingSince ?? begin
        failingSince = since
        guard lose(since: since, because: "its workers keep exiting") else { return false }
        MonotonicClock.sleep(nanoseconds: UInt64(GuestSession.pause * 1e9))
        logger.notice("restarting the worker of \(task.name)")
        return true
    }

    /// Applies `onLost` to a guest that no worker serves, once that has lasted for the time of `--give-up`.
    ///
    /// - Parameters:
    ///   - since: since when no worker serves.
    ///   - reason: why none does.
    /// - Returns: whether to keep starting workers.
    private mutating func lose(since: UInt64, because reason: String) -> Bool {
        let isComplete = resident == task.regions.reduce(0) { $0 + $1.pageCount }
        var fate = GuestFate(task, from: state?.memory.record ?? GuestFate.Record(isHeld: isHeld))
        var actions = fate.workersFailed(since: since, isComplete: isComplete, at: MonotonicClock.now())
        let what = "\(task.name) cannot be served: \(reason)"
        while !actions.isEmpty {
            switch actions.removeFirst() {
            case .hold:
                isHeld = true
                state?.memory.isHeld = true
                logger.error("\(what); it waits for the first worker that serves again")
            case .kill:
                do {
                    try PeerProcess.kill(process) { userfaultfd.isMemoryGone }
                    logger.error("\(what); it is killed")
                } catch {
                    logger.error("\(what), and it cannot be killed: \(error)")
                    actions += fate.killFailed()
                }
            case .connect, .attach, .remember, .hangUp, .detach, .continue, .giveBack, .report:
                preconditionFailure("a session without a worker only holds or kills its guest")
            }
        }
        return fate.state != .killed
    }
}

extension PeerProcess {
    /// Nanoseconds in which a killed process must end.
    private static let patience: UInt64 = 5_000_000_000

    /// Kills a guest's process, and returns once the guest's memory is gone.
    ///
    /// - Parameters:
    ///   - process: the process that has handed over the memory; nil if it has ended.
    ///   - isGone: whether the memory is gone; asked every few milliseconds.
    /// - Throws: `SystemError` if the signal cannot be sent, ``ServiceFailure`` if the memory is in use all the same.
    static func kill(_ process: borrowing PeerProcess?, until isGone: () -> Bool) throws {
        switch process {
        case .none:
            throw ServiceFailure(description: "another process than the one that has handed it over uses its memory")
        case .some(let process):
            try process.send(.kill)
            let deadline = MonotonicClock.now() + patience
            while !isGone() {
                // The memory of a process is given up before its end can be seen.
                let isOver = process.hasEnded && !isGone()
                guard !isOver, MonotonicClock.now() < deadline else {
                    throw ServiceFailure(description: "another process than \(process.id) uses its memory")
                }
                MonotonicClock.sleep(nanoseconds: 2_000_000)
            }
        }
    }
}
