import Connections
import DestinationAgent
public import LinuxSystem
public import Logging
import PageProtocol
import Synchronization
import Telemetry

/// Serves the faults of one guest until it has ended: a worker's work.
///
/// It may be killed at any moment; another begins where it was.
public final class GuestService: Sendable {
    /// How the service ended.
    public enum End: Int32, Sendable {
        /// The guest has ended.
        case done = 0
        /// It cannot be served any more, by nobody; what is to be done then was done.
        case lost = 3
    }

    private enum Event: Sendable {
        case linked(SnapshotLink)
        case lost(reason: String)
        case unreachable(reason: String)
        case refused(reason: String)
        case agent(DestinationAgent.Event)
        case guestEnded
        /// The time is over in which touches are recorded.
        case recorded
    }

    let task: GuestTask
    let logger: Logger
    let memory: SessionMemory
    private let process: PeerProcess
    private let socket: SharedSocket
    private let agent: DestinationAgent
    private let events: Mailbox<Event>
    /// Whether it was told that the record of the working set cannot be written.
    let isRecordLossTold = Atomic<Bool>(false)
    private let stopping: EventDescriptor
    /// Raised when the lanes of a lost link have been left.
    private let left: EventDescriptor
    private let threads = ThreadGroup()

    /// Takes a guest over.
    public init(_ task: GuestTask, _ inherited: consuming Inherited, logger: Logger) throws {
        self.task = task
        self.logger = logger
        let userfaultfd = try inherited.userfaultfd()
        let file = try inherited.memoryFile()
        process = try inherited.process(task.process)
        socket = SharedSocket(try inherited.socket(to: task.name))
        memory = try SessionMemory(file, of: task)
        stopping = try EventDescriptor()
        left = try EventDescriptor()
        let events = try Mailbox<Event>()
        self.events = events
        let isHuge = task.regions.contains { $0.range.isHuge }
        agent = try DestinationAgent(
            userfaultfd: userfaultfd,
            ranges: task.regions.map(\.range),
            resident: memory.resident,
            table: RegionTable(
                task.regions.enumerated().map { index, region in
                    RegionShape(
                        name: "region\(index)",
                        guestAddress: region.offset,
                        pageSize: UInt32(region.pageSize),
                        pageCount: UInt64(region.pageCount)
                    )
                }
            ),
            // What was asked for ahead would not be seen to be touched.
            prefetch: task.settings.record == nil ? .streams() : .none,
            faultThreads: task.settings.faultThreads,
            removals: memory.removals,
            pageTable: isHuge ? PageTable(of: task.process) : nil,
            touches: memory.touches
        ) { events.put(.agent($0)) }
    }

    /// Serves until the guest has ended or is lost.
    ///
    /// - Throws: what only another worker can mend.
    public func run() throws -> End {
        try agent.start()
        if agent.isComplete { agent.giveBack() } else { try threads.run("link") { [self] in keepLink() } }
        try threads.run("guest") { [self] in
            if process.waitForEnd(orHangUpOf: task.keepsSocketOpen ? socket : nil, or: stopping) {
                events.put(.guestEnded)
            }
        }
        if task.settings.record != nil, !memory.isRecorded {
            try threads.run("record") { [self] in
                let end = memory.attached + UInt64(task.settings.recordMilliseconds) * 1_000_000
                let now = MonotonicClock.now()
                if now < end, stopping.wait(milliseconds: Int((end - now) / 1_000_000) + 1) { return }
                events.put(.recorded)
            }
        }
        defer {
            stopping.raise()
            left.raise()
            agent.hangUp()
        }
        let end = try serve()
        writeRecord()
        logger.notice("\(task.name) is served no longer: \(figures)")
        return end
    }

    private func serve() throws -> End {
        if agent.isComplete {
            memory.lostSince = nil
            try goOn()
        } else if memory.lostSince == nil {
            // Nobody has been reached yet, maybe since before this worker began.
            memory.lostSince = MonotonicClock.now()
        }
        var reason = "no server was reached yet"
        var (wasLinked, isTold) = (false, false)
        var link: SnapshotLink?
        var told = (pages: 0, at: memory.attached)
        while true {
            switch events.next(milliseconds: interval(isLinked: link != nil)) {
            case .linked(let next) where agent.isComplete: next.close()
            case .linked(let next):
                memory.remember(next.snapshot)
                let runs = workingSet(of: next.snapshot)
                try agent.attach(urgent: next.lanes.urgent, bulk: next.lanes.bulk, fetching: runs)
                link = next
                if let since = memory.lostSince, wasLinked {
                    let seconds = Double(MonotonicClock.now() - since) / 1e9
                    logger.notice("\(task.name) can have pages again, after \((seconds * 1000).rounded() / 1000) s")
                }
                memory.lostSince = nil
                wasLinked = true
            case .lost(let why):
                // A guest can hold up the threads that place its pages.
                agent.hangUp()
                link = nil
                left.raise()
                guard !agent.isComplete else { continue }
                if !memory.isHeld {
                    logger.warning("\(task.name) has no pages from \(task.settings.source) for now: \(why)")
                    reason = why
                }
                memory.lostSince = memory.lostSince ?? MonotonicClock.now()
            case .unreachable(let why):
                // A link that was lost has been told of already, and whoever was never reached is told of once.
                if !wasLinked, !isTold { logger.warning("\(task.name) has no pages yet: \(why)") }
                (reason, isTold) = (why, true)
            case .refused(let why):
                reason = why
                if try lose(why) { return .lost }
            case .agent(.everyPageResident):
                agent.giveBack()
                logger.notice("\(task.name) has all of its pages: \(figures)")
                try goOn()
                link?.close()
            case .agent(.everyRunFetched):
                let milliseconds = (MonotonicClock.now() - memory.attached) / 1_000_000
                logger.notice("\(task.name) has its working set, \(milliseconds) ms after it attached")
            case .agent(.laneLost(let lane, let reason)):
                logger.info("\(task.name): the \(lane) lane: \(reason)")
                link?.close()
            case .agent(.faultUnanswered(let reason)):
                logger.error("\(task.name): \(reason); it is tried again each second")
            case .agent(.failed(let reason)):
                if process.hasEnded { return .done }
                throw ServiceFailure(description: "\(task.name) cannot be served: \(reason)")
            case .guestEnded: return .done
            case .recorded: writeRecord()
            case nil:
                let (pages, now) = (agent.progress.pagesResident, MonotonicClock.now())
                guard pages != told.pages, now - told.at >= GuestService.progressInterval else { break }
                logger.info("\(task.name): \(figures)")
                told = (pages, now)
            }
            if memory.isHeld {
                // Whoever has answered what it was stopped for has its pages.
                if link != nil, agent.longestWaited == nil { try goOn() }
            } else if let why = overdue(reason) {
                if try lose(why) { return .lost }
                // One that does not answer is left for another.
                link?.close()
            }
        }
    }

    /// Milliseconds after which to look although nothing happens; nil where there is nothing to look at.
    private func interval(isLinked: Bool) -> Int? {
        if agent.isComplete { return nil }
        if memory.isHeld { return isLinked ? 50 : nil }
        return memory.lostSince == nil ? 1000 : 50
    }

    /// Why the guest is lost, once it needs a page and has waited for the server, or for its answer, for long enough.
    private func overdue(_ reason: String) -> String? {
        guard let waited = agent.longestWaited else { return nil }
        let since = max(min(memory.lostSince ?? .max, waited.since), memory.wentOn)
        let limit = task.settings.giveUpSeconds
        let now = MonotonicClock.now()
        guard now > since, Double(now - since) / 1e9 >= limit else { return nil }
        return memory.lostSince == nil
            ? "\(task.settings.source) has not answered for \(limit) s"
            : "\(task.settings.source) has been gone for \(limit) s: \(reason)"
    }

    /// Does to the guest what is to be done when it cannot be served, unless it is held already.
    ///
    /// - Returns: whether that was the end of it.
    private func lose(_ reason: String) throws -> Bool {
        guard !memory.isHeld else { return false }
        let page = agent.longestWaited.map { "the page at byte \(task.offset(ofPage: $0.page, region: $0.region))" }
        let what = "\(task.name) cannot have \(page ?? "its pages"): \(reason)"
        switch task.settings.onLost {
        case .kill:
            try process.send(.kill)
            logger.error("\(what); it is killed")
            return true
        case .hold:
            // Noted first: whoever serves next lets it go on.
            memory.isHeld = true
            try process.send(.stop)
            logger.error(
                "\(what); it is stopped until \(task.settings.source) serves the file that it was restored from"
            )
            return false
        }
    }

    /// Lets a guest that is held go on.
    private func goOn() throws {
        guard memory.isHeld else { return }
        memory.wentOn = MonotonicClock.now()
        try process.send(.goOn)
        memory.isHeld = false
        logger.notice("\(task.name) goes on")
    }

    /// Nanoseconds between two lines on how far a guest's memory has come.
    private static let progressInterval: UInt64 = 10_000_000_000

    private static let firstPause = 0.02
    private static let longestPause = 1.0
    /// What the server has passes seldom.
    private static let pauseAfterRefusal = 3.0

    /// Keeps a link to the server for as long as pages are missing.
    private func keepLink() {
        let settings = task.settings
        var pause = GuestService.firstPause
        while !stopping.isRaised, !agent.isComplete {
            let before = agent.progress.pagesResident
            do {
                let link = try SnapshotLink(
                    to: settings.address,
                    slices: task.regions.map(\.slice),
                    expecting: memory.snapshot,
                    urgentLanes: settings.faultThreads,
                    peerTimeout: .seconds(settings.peerTimeoutSeconds)
                )
                left.clear()
                events.put(.linked(link))
                events.put(.lost(reason: link.waitForLoss()))
                left.wait()
            } catch let refusal as SnapshotRefused {
                events.put(.refused(reason: "\(refusal)"))
                pause = GuestService.pauseAfterRefusal
            } catch {
                events.put(.unreachable(reason: "\(error)"))
            }
            // A link that has brought nothing says nothing of the next.
            if agent.progress.pagesResident > before { pause = GuestService.firstPause }
            if stopping.wait(seconds: pause) { return }
            pause = min(GuestService.longestPause, pause * 2)
        }
    }

    private var figures: String {
        let progress = agent.progress
        let service = LatencySummary(agent.service)
        return
            "\(progress.pagesResident) of \(progress.pagesTotal) pages are here, by this worker \(progress.demand) on demand, "
            + "\(progress.prefetched + progress.pushed + progress.zero) ahead, \(progress.removed) dropped before; a fault took "
            + "\(Int(service.p50)) µs at the median, \(Int(service.p99)) µs at 99 of 100"
    }
}

/// What ends a worker, so that another one tries.
struct ServiceFailure: Error, CustomStringConvertible {
    let description: String
}
