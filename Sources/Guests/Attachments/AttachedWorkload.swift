import Guest
import LinuxSystem
import Logging
import Synchronization
import Telemetry

/// A workload in another process, which alone knows its devices and what its pages should hold.
final class AttachedWorkload: Workload {
    let description: GuestDescription
    /// The program and process id here; the description has the name at the source.
    let name: String
    /// The memory as it is read if the workload moves away; nil for a process that can only receive one.
    let sourceMemory: [SourceRegion]?
    let canVerify: Bool
    private let process: AttachedProcess
    /// Called when the workload is released before its process was sent any message, so that another guest can use it.
    private let onUnused: @Sendable () -> Void
    /// Called before the process is sent its first message, after which no other guest can use it.
    private let onUse: @Sendable () -> Void
    private let logger: Logger
    private let state: Mutex<State>
    private let isUsed = Atomic<Bool>(false)
    /// Pages as they were when the process was asked to save; nil while it runs.
    private let sample = Mutex<MemorySample?>(nil)
    private let end = EndNotice()
    private let watch = ThreadGroup()

    /// What the process does with the workload.
    enum Standing: Hashable {
        /// The workload has arrived, or is about to, and has not run in this process.
        case waiting
        /// The workload runs.
        case running
        /// The process has stopped the workload, which no other side may start.
        case stopped
        /// The process has stopped the workload, which another side may start.
        case departed
        /// The workload runs elsewhere for good.
        case released
        /// The process has ended or hung up, or was killed.
        case ended
    }

    /// What the process does, and since when.
    private struct State {
        var standing: Standing
        var activity = WorkloadActivity()
    }

    private var standing: Standing { state.withLock(\.standing) }

    /// Makes a workload that arrives in a process.
    init(
        arriving description: GuestDescription,
        in process: AttachedProcess,
        memory: [SourceRegion]?,
        abilities: HandOff.Abilities,
        logger: Logger,
        onUse: @escaping @Sendable () -> Void,
        onUnused: @escaping @Sendable () -> Void
    ) {
        self.description = description
        self.process = process
        name = process.title
        sourceMemory = memory
        canVerify = abilities.contains(.verify)
        self.logger = logger
        state = Mutex(State(standing: .waiting))
        self.onUse = onUse
        self.onUnused = onUnused
    }

    /// Makes the workload of a process that runs it.
    ///
    /// - Throws: `SystemError` if no thread can be started.
    init(
        running description: GuestDescription,
        in process: AttachedProcess,
        memory: [SourceRegion],
        abilities: HandOff.Abilities,
        logger: Logger
    ) throws(SystemError) {
        self.description = description
        self.process = process
        name = process.title
        sourceMemory = memory
        canVerify = abilities.contains(.verify)
        self.logger = logger
        state = Mutex(State(standing: .running))
        onUse = {}
        onUnused = {}
        isUsed.store(true, ordering: .releasing)
        state.withLock { $0.activity.isRunning = true }
        try watch.run("attached") { [weak self, process] in
            process.waitForEnd()
            self?.noteEnd()
        }
    }

    deinit {
        guard isUsed.load(ordering: .acquiring) else { return onUnused() }
        // The thread that watches the process ends too. Before version 3, it keeps the connection until the process ends.
        if process.version >= 3 { process.leave() }
    }

    var devices: DeviceSet { DeviceSet(self) }

    private func use() {
        isUsed.store(true, ordering: .releasing)
        onUse()
    }

    // MARK: Starting and stopping

    func run(_ permit: consuming RunPermit) throws -> StartResult {
        switch standing {
        case .waiting: return try start()
        case .running: return .runs
        case .stopped, .departed: return try resume()
        case .released: throw AttachmentError("\(name) was told that its workload runs elsewhere for good")
        case .ended: return .ended(reason: process.endReason)
        }
    }

    private func start() throws -> StartResult {
        use()
        // Everything that can fail comes before RUN, since an error means that nothing was executed.
        // Whether the process runs, once that is decided.
        let start = try Mailbox<Bool>()
        try watch.run("attached") { [weak self, process] in
            guard start.next() else { return }
            process.waitForEnd()
            self?.noteEnd()
        }
        let result: StartResult
        do {
            result = try askToRun()
        } catch {
            start.put(false)
            throw error
        }
        note(result == .runs ? .running : .ended)
        // If the process has already ended, the result reports that, and not the watching thread.
        start.put(result == .runs)
        return result
    }

    /// Tells the process to run, and waits for the answer.
    ///
    /// A process that hangs up, does not answer in time or sends an invalid answer may have run, so it counts as
    /// started and as ended. The connection is closed. If the process did not hang up, it is also killed, so that it
    /// does not run later.
    ///
    /// - Throws: if the process provably has not run: RUN was not sent, or the process answered FAILED.
    private func askToRun() throws -> StartResult {
        guard !process.isGone else { throw AttachmentError(process.endReason) }
        do {
            try process.request(.run)
            return .runs
        } catch let failure as ProcessFailure {
            throw AttachmentError(failure.description)
        } catch let error as NotSent {
            note(.ended)
            throw AttachmentError(error.description)
        } catch {
            // For any other reason, the process may have executed something.
            process.leave()
            let what: String
            switch error {
            case let late as NoAnswer: what = "\(process.name) did not answer RUN within \(late.seconds) s"
            case let nonsense as AttachmentError: what = nonsense.description
            default: return .ended(reason: process.hangUpReason)
            }
            guard let obstacle = process.kill() else {
                return .ended(reason: "\(what), and was killed, so that it does not run later")
            }
            return .ended(reason: "\(what), and must be killed, so that it does not run later: \(obstacle)")
        }
    }

    /// Resumes a workload that was stopped here.
    ///
    /// - Throws: if the process answered FAILED, or has ended.
    private func resume() throws -> StartResult {
        do {
            try process.request(.resume)
        } catch let failure as ProcessFailure {
            throw AttachmentError(failure.description)
        } catch let late as NoAnswer {
            // The process may have resumed, so that the workload counts as running. The next request waits for this
            // answer first.
            logger.warning("\(late); its workload counts as running")
        } catch {
            note(.ended)
            if process.hasEnded { throw AttachmentError("\(process.name) has ended") }
            return .ended(reason: "\(error); it may run, and this agent has no more to do with it")
        }
        note(.running)
        return .runs
    }

    /// Stops the workload.
    ///
    /// - Throws: why the process does not stop. It then continues to run: a process that has not answered in time is
    ///   told to resume.
    func stop() throws {
        switch standing {
        case .running: break
        case .waiting, .stopped, .departed, .released: return
        case .ended: throw AttachmentError(process.endReason)
        }
        guard sourceMemory != nil else {
            throw AttachmentError("\(process.name) cannot be stopped from here; stop the process itself")
        }
        // The workload executes until some moment after this one.
        let before = MonotonicClock.now()
        do {
            try process.request(.stop)
        } catch let late as NoAnswer {
            // A thread that waits for a missing page can hold up the answer for long.
            try process.post(.resume)
            throw AttachmentError("\(late); it was told to resume")
        } catch let failure as ProcessFailure {
            throw AttachmentError(failure.description)
        } catch {
            note(.ended)
            throw AttachmentError("\(error)")
        }
        note(.stopped, at: before)
    }

    /// Lets a running process do what a move needs and takes long.
    func prepareToMove() throws {
        if activity.isRunning { try process.request(.prepare) }
    }

    private func note(_ next: Standing, at time: UInt64 = MonotonicClock.now()) {
        state.withLock { state in
            guard state.standing != .ended else { return }
            state.standing = next
            switch next {
            case .running:
                state.activity.isRunning = true
                state.activity.firstOperation = time
            case .stopped, .ended:
                if state.activity.isRunning { state.activity.lastOperation = time }
                state.activity.isRunning = false
            case .waiting, .departed, .released: break
            }
        }
        if next == .running { sample.withLock { $0 = nil } }
    }

    /// False for a workload that has arrived paused: a process is asked to save only what it has run.
    var movesPaused: Bool { process.version < 3 || standing != .waiting }

    // MARK: Arriving and leaving

    func memoryIsWhole() {
        switch standing {
        case .running, .stopped: break
        case .waiting: if process.version < 3 { return }
        case .departed, .released, .ended: return
        }
        do {
            try process.tellComplete()
        } catch {
            // A process that has hung up is reported by the thread that watches it.
            logger.notice("cannot tell \(process.name) that its memory is complete: \(error)")
        }
    }

    /// Kills a process whose missing pages never arrive; refuses a process that was not told to run.
    func settle(_ arrival: Arrival) {
        guard arrival == .abandoned else { return }
        switch standing {
        case .running, .stopped:
            // The next caller must not wait until the process is gone.
            if process.kill() == nil { note(.ended) }
        case .waiting:
            guard isUsed.load(ordering: .acquiring), process.version >= 3 else { break }
            // The message cannot be sent if the process has already left.
            try? process.refuse("the migration has failed; attach again with new memory")
        case .departed, .released, .ended: break
        }
    }

    /// Tells the process that its workload runs elsewhere for good.
    func hasMovedAway() throws {
        guard standing == .departed else { return }
        note(.released)
        try process.request(.release)
    }

    private func noteEnd() {
        // The answer to a request that was already received counts first.
        process.settle()
        let before = standing
        note(.ended)
        if before != .released { end.note(process.endReason) }
    }

    /// Whether the process has ended; one that has only hung up may run.
    var isGone: Bool { process.hasEnded }

    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        end.onEnd(tell)
    }

    let endsWithAgent = false

    // MARK: Asking

    var activity: WorkloadActivity { state.withLock(\.activity) }

    /// Empty: the fetcher measures the faults of the process's threads.
    var stalls: [LatencyRecorder] { [] }
    /// Nil: how many threads the workload has is not known.
    var blockedNanoseconds: UInt64? { nil }

    func verify() throws -> Verification? {
        guard canVerify else { return nil }
        let (checked, wrong) = try process.verify()
        return Verification(pagesChecked: Int(clamping: checked), corrupt: Int(clamping: wrong))
    }
}

extension AttachedWorkload: DeviceSet.Elsewhere {
    func load(_ saved: [DeviceSet.Saved]) throws {
        use()
        try process.load(saved)
    }

    func save() throws -> [DeviceSet.Saved] {
        switch standing {
        // A paused workload that was taken back has departed before.
        case .stopped, .departed: break
        case .waiting, .running, .released, .ended:
            throw AttachmentError("\(process.name) has not stopped its workload, or has hung up since")
        }
        return try process.save {
            // The first reads of the memory would otherwise add to the downtime.
            let read = try MemorySample(of: sourceMemory ?? [])
            sample.withLock { $0 = read }
        }
    }

    /// Tells the process that another side may start the workload.
    ///
    /// - Throws: if the process did not answer, or its memory has changed since it stopped.
    func depart() throws {
        switch standing {
        case .stopped, .departed: break
        // A process that has hung up before this may run on by itself.
        case .ended: throw AttachmentError(process.endReason)
        case .waiting, .running, .released: throw AttachmentError("\(process.name) has not stopped its workload")
        }
        if let sample = sample.withLock(\.self), let place = try sample.firstChange(in: sourceMemory ?? []) {
            throw AttachmentError(
                "\(process.name) goes on running after it has answered STOP: page \(place.page) of region "
                    + "\(place.region) has changed; stop everything that writes to the memory before DONE"
            )
        }
        // Noted before the thread that watches the process can see its end.
        try process.request(.depart) { note(.departed) }
    }
}
