import Connections
package import LinuxSystem
package import Logging
import PageFetcher
import PageProtocol
import Synchronization
import Telemetry

/// Serves the faults of one guest until the guest has ended: the work of a worker process.
///
/// A worker may be killed at any moment. The next worker continues from the state in `SessionMemory`.
package final class GuestService: Sendable {
    /// How the service ended; the worker's exit status.
    package enum End: Int32, Sendable {
        /// The guest has ended.
        case done = 0
        /// The guest has all of its pages, and needs neither its server nor a handler any more.
        case complete = 2
        /// The guest is lost, and `onLost` has been applied.
        case lost = 3
    }

    enum Event: Sendable {
        /// A link stands, over which the recorded working set is to be fetched.
        case linked(SnapshotLink, fetching: [PageRun])
        /// The server of the link has told a new identity of its snapshot.
        case renewed(SnapshotIdentity)
        case lost(reason: String)
        case unlinked(LinkFailure)
        case refused(reason: String)
        case fetcher(PageFetcher.Event)
        /// An event of a link's lanes; another link may have replaced that link meanwhile.
        case lane(SnapshotLink, PageFetcher.LaneEvent)
    }

    let task: GuestTask
    let logger: Logger
    let memory: SessionMemory
    /// The process that has handed over the memory; nil if it had ended before this handler adopted the guest.
    let process: PeerProcess?
    /// The connection to the guest's process; nil if an earlier handler had it.
    private let socket: SharedSocket?
    let fetcher: PageFetcher
    let events: Mailbox<Event>
    /// Whether a failure to write the working set's record was already logged; locked while the record is written.
    let isRecordLossTold = Mutex(false)
    private let stopping: EventDescriptor
    /// Raised once the lanes of a lost link are no longer used, so that the server may be redialed.
    let left: EventDescriptor
    let threads = ThreadGroup()

    /// Prepares to serve a guest, with the descriptors that this process inherited from `GuestSession`.
    ///
    /// - Throws: `HandedDescriptorError` if an inherited descriptor is missing or of another kind, `SystemError` if the
    ///   kernel refuses memory or a descriptor.
    package init(_ task: GuestTask, _ inherited: consuming Inherited, logger: Logger) throws {
        self.task = task
        self.logger = task.logger(of: logger)
        let userfaultfd = try inherited.userfaultfd()
        let file = try inherited.memoryFile()
        process = task.hasEnded == true ? nil : try inherited.process(task.process)
        socket = task.hasConnection ? SharedSocket(try inherited.socket(to: task.name)) : nil
        memory = try SessionMemory(file, of: task)
        try memory.lockEvents()
        // The next handler ends this worker before it starts its own.
        memory.worker = PeerProcess.Birth.own.map { ($0.id, $0.started) }
        stopping = try EventDescriptor()
        left = try EventDescriptor()
        let events = try Mailbox<Event>()
        self.events = events
        fetcher = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: task.regions.map(\.range),
            resident: memory.resident,
            table: RegionTable(slices: task.regions.map(\.slice)),
            // While touches are recorded nothing is prefetched: the touch of a present page raises no fault.
            prefetch: task.settings.record == nil ? .streamsAndBlocks : .none,
            faultThreads: task.settings.faultThreads,
            events: memory.events,
            pageTable: GuestService.pageTable(of: process, for: task),
            touches: memory.touches,
            waitsForMemory: true,
            polling: task.settings.polling
        ) { events.put(.fetcher($0)) }
    }

    /// Opens the page table of a guest that has huge pages; nil for other guests, and if the process has ended.
    private static func pageTable(of process: borrowing PeerProcess?, for task: GuestTask) throws -> PageTable? {
        guard task.regions.contains(where: { $0.range.isHuge }) else { return nil }
        switch process {
        case .none: return nil
        case .some(let process):
            let table: PageTable
            do throws(SystemError) {
                table = try PageTable(of: process.id)
            } catch {
                guard process.hasEnded else { throw error }
                return nil
            }
            // The number of a process that has ended may be another's.
            return process.hasEnded ? nil : table
        }
    }

    /// Serves until the guest has ended or is lost.
    ///
    /// - Throws: a failure of this worker, after which another worker must be started.
    package func run() throws -> End {
        try fetcher.start()
        defer {
            stopping.raise()
            left.raise()
            fetcher.hangUp()
        }
        let end = try serve()
        // Only the record is left to do, which a slow disk may hold up.
        memory.beat = 0
        writeRecord()
        logger.notice("stopped serving \(task.name): \(figures)")
        return end
    }

    /// What the thread that handles events keeps from one event to the next.
    struct Course {
        var fate: GuestFate
        /// The link that stands, or was closed and whose loss is not reported yet.
        var link: SnapshotLink?
        /// The recorded working set, which that link is to fetch.
        var runs: [PageRun] = []
        /// The resident pages that the log reported last, and when.
        var logged: (pages: Int, at: UInt64)
        /// Whether the complete memory was given back, so that its process waits for no reader of events.
        var isLetGo = false
        /// Whether writing the record of touches was tried; if that failed, it is tried again at the guest's end.
        var isRecordTried = false
        /// The departure of the process that has handed over the memory; nil while it is there.
        var departure: Departure?
        /// What this host lacks, so that the guest's pages wait.
        var shortage: PageFetcher.Shortage?
        /// Until when this host lacked memory; 0 if it never did.
        var shortUntil: UInt64 = 0
        /// What earlier workers have counted.
        let earlier: WorkerFigures
        /// The order to fetch the rest that the present link was made for, or is being made for.
        var fill: FillRate?
        /// Whether the link was closed so that the next one follows an order to fetch the rest.
        var isReordered = false
    }

    /// The time after the process that has handed over the memory has exited or hung up.
    ///
    /// The memory may be that of another process, for which this one was a relay.
    struct Departure {
        let began = MonotonicClock.now()
        /// Milliseconds until the next look at the memory.
        private(set) var pause = 5
        private var isTold = false

        /// Doubles the pause.
        ///
        /// - Returns: whether this is the first time that the memory has been in use for a second.
        mutating func goOn() -> Bool {
            pause = min(1000, pause * 2)
            guard !isTold, MonotonicClock.time(since: began) >= .seconds(1) else { return false }
            isTold = true
            return true
        }
    }

    private func serve() throws -> End {
        var course = Course(
            fate: GuestFate(task, from: memory.record),
            logged: (0, memory.attached),
            earlier: memory.figures,
            fill: memory.fill
        )
        try take(course.fate.workerStarted(isComplete: fetcher.isComplete, at: MonotonicClock.now()), &course)
        while true {
            // Before the wait: for memory that is complete from the start, no event comes.
            if let end = end(course) { return end }
            let interval = interval(in: course.fate.state)
            memory.beat = interval == nil ? 0 : MonotonicClock.now()
            let untilRecord = timeUntilRecord(course)
            let event = wait(milliseconds: [interval, untilRecord].compactMap(\.self).min(), &course)
            noteShortage(&course)
            followOrder(&course)
            if fetcher.isComplete, course.fate.state != .complete {
                try take(course.fate.completed(at: MonotonicClock.now()), &course)
                logger.notice("\(task.name) has all of its pages: \(figures)")
            }
            if let event { try handle(event, &course) } else { logProgress(&course) }
            let now = MonotonicClock.now()
            if untilRecord != nil, timeUntilRecord(course) == 0 {
                course.isRecordTried = true
                // A slow disk must not hold up events.
                try threads.run("record") { [self] in writeRecord() }
            }
            if let waited = fetcher.longestWaited {
                // The server need not have seen a request for a page that has waited for memory.
                let isShort = course.shortage != nil
                let since = isShort ? waited.since : max(waited.since, course.shortUntil)
                try take(course.fate.pageWanted(since: since, isShort: isShort, at: now), &course)
            } else {
                try take(course.fate.noPageWanted(at: now), &course)
            }
            noteFigures(course)
        }
    }

    /// How the service has ended; nil if it has not.
    private func end(_ course: Course) -> End? {
        switch course.fate.state {
        case .killed: return .lost
        case .ended: return .done
        case .complete where course.isLetGo && course.link == nil:
            fetcher.stop()
            return .complete
        case .unserved, .unlinked, .linked, .held, .hangingUp, .returning, .complete: return nil
        }
    }

    /// Milliseconds to wait for an event before the waiting faults are checked anyway; nil to wait for an event only.
    private func interval(in state: GuestFate.State) -> Int? {
        switch state {
        case .unlinked, .returning: 50
        case .linked, .held, .hangingUp, .unserved: 1000
        case .complete, .killed, .ended: nil
        }
    }

    /// Waits for an event, and watches the guest's process and memory meanwhile.
    ///
    /// - Parameter milliseconds: the longest wait; nil for any.
    private func wait(milliseconds: Int?, _ course: inout Course) -> Event? {
        if let event = events.next(milliseconds: 0) { return event }
        guard var departure = course.departure else {
            if waitForDeparture(milliseconds: milliseconds) {
                course.departure = Departure()
                if fetcher.isMemoryGone { course.fate.guestEnded() }
            }
            return events.next(milliseconds: 0)
        }
        let event = events.next(milliseconds: min(departure.pause, milliseconds ?? departure.pause))
        if fetcher.isMemoryGone {
            course.fate.guestEnded()
        } else if departure.goOn() {
            let what = hasProcess ? "has hung up" : "has ended"
            logger.warning("\(task.name) \(what), but the memory that it handed over is in use, and is served on")
        }
        course.departure = departure
        return event
    }

    /// Waits for an event or for the departure of the process that has handed over the memory.
    ///
    /// - Returns: whether the process has departed.
    private func waitForDeparture(milliseconds: Int?) -> Bool {
        let watched = task.keepsSocketOpen ? socket : nil
        return switch process {
        case .some(let process): events.wait(orEndOf: process, watched, milliseconds: milliseconds) == .departure
        case .none: true
        }
    }

    /// Whether the process that has handed over the memory is there.
    private var hasProcess: Bool {
        switch process {
        case .some(let process): !process.hasEnded
        case .none: false
        }
    }

    /// Milliseconds until the touches were recorded for as long as they should; nil if they are not recorded.
    private func timeUntilRecord(_ course: Course) -> Int? {
        guard task.settings.record != nil, !memory.isRecorded, !course.isRecordTried else { return nil }
        let end = memory.attached + UInt64(task.settings.recordMilliseconds) * 1_000_000
        let now = MonotonicClock.now()
        return now < end ? Int((end - now) / 1_000_000) + 1 : 0
    }

    private func handle(_ event: Event, _ course: inout Course) throws {
        switch event {
        case .linked(let link, let runs):
            (course.link, course.runs) = (link, runs)
            try take(course.fate.linked(to: link.snapshot, at: MonotonicClock.now()), &course)
        case .renewed(let snapshot):
            try take(course.fate.renewed(snapshot), &course)
        case .lost(let reason):
            try take(course.fate.linkLost(reason, at: MonotonicClock.now()), &course)
        case .unlinked(let failure):
            if course.isReordered {
                course.isReordered = false
                logger.warning("\(task.name) has lost its link to \(task.settings.source): \(failure.reason)")
            }
            try take(course.fate.linkFailed(failure), &course)
        case .refused(let reason): try take(course.fate.refused(reason), &course)
        case .fetcher(.everyPageResident):
            // `serve` reports this before it handles an event.
            break
        case .lane(_, .everyRunFetched):
            let milliseconds = (MonotonicClock.now() - memory.attached) / 1_000_000
            logger.notice("\(task.name) has its working set, \(milliseconds) ms after it attached")
        case .lane(let link, .lost(let lane, let reason)):
            logger.info("\(task.name): the \(lane) lane broke: \(reason)")
            try closeAfterLastWord(link)
        case .fetcher(.faultUnanswered(let reason)):
            logger.error("\(task.name): \(reason); retrying each second")
        // Only with features that are refused here.
        case .fetcher(.forked): break
        case .fetcher(.failed(let reason)), .fetcher(.memoryLost(let reason)), .lane(_, .placementFailed(let reason)):
            guard fetcher.isMemoryGone else {
                throw ServiceFailure(description: "\(task.name) cannot be served: \(reason)")
            }
            course.fate.guestEnded()
        }
    }

    /// Reports that the guest's pages wait for memory, and that they wait no longer.
    private func noteShortage(_ course: inout Course) {
        let shortage = fetcher.shortage
        if let shortage {
            course.shortUntil = MonotonicClock.now()
            if course.shortage == nil {
                logger.error("\(task.name) waits for \(MemoryWant(shortage, of: task.process))")
            }
        } else if course.shortage != nil {
            logger.notice("\(task.name) waits for memory no longer")
        }
        course.shortage = shortage
    }

    /// Tells the handler what was counted so far.
    private func noteFigures(_ course: Course) {
        var figures = course.earlier.adding(fetcher.progress, fetcher.service)
        figures.state = course.fate.state.code
        memory.figures = figures
    }

    /// Makes a new link if the operator has ordered to fetch the rest, or to fetch it at another rate.
    private func followOrder(_ course: inout Course) {
        let order = memory.fill
        guard order != course.fill, course.link != nil else { return }
        course.fill = order
        course.isReordered = true
        let rate = order.flatMap { $0 == .unlimited ? nil : ", at most \($0.bytesPerSecond) bytes in a second" } ?? ""
        logger.notice("\(task.name) gets the rest of its pages\(rate), as its operator has ordered")
        course.link?.close()
    }

    /// Closes a link of which a lane broke, once the control connection has had time to bring a better reason.
    private func closeAfterLastWord(_ link: SnapshotLink) throws(SystemError) {
        try threads.run("last-word") { [self] in
            _ = stopping.wait(milliseconds: 200)
            link.close()
        }
    }

    private func logProgress(_ course: inout Course) {
        let (pages, now) = (fetcher.progress.pagesResident, MonotonicClock.now())
        guard pages != course.logged.pages, now - course.logged.at >= GuestService.progressInterval else { return }
        logger.info("\(task.name): \(figures)")
        course.logged = (pages, now)
    }

    /// Nanoseconds between two progress lines in the log.
    private static let progressInterval: UInt64 = 10_000_000_000

    /// Seconds before the first redial; each failure doubles the pause, up to ``longestPause``.
    private static let firstPause = 0.02
    private static let longestPause = 1.0
    /// Seconds before a redial after a refusal, whose reason seldom passes quickly.
    private static let pauseAfterRefusal = 3.0

    /// Keeps a link to the server, and redials it, for as long as pages are missing.
    func keepLink() {
        let settings = task.settings
        var pause = GuestService.firstPause
        while !stopping.isRaised, !fetcher.isComplete {
            let before = fetcher.progress.pagesResident
            do {
                let link = try SnapshotLink(
                    to: settings.address,
                    slices: task.regions.map(\.slice),
                    expecting: memory.snapshot,
                    urgentLanes: settings.faultThreads,
                    asksAhead: settings.prefetch != nil || settings.fill != nil || memory.fill != nil,
                    peerTimeout: .seconds(settings.peerTimeoutSeconds)
                )
                left.clear()
                // Read by this thread: a slow disk must not hold up events.
                events.put(.linked(link, fetching: workingSet(of: link.snapshot)))
                let end = link.waitForEnd { events.put(.renewed($0)) }
                switch end {
                case .lost(let reason): events.put(.lost(reason: reason))
                case .refused(let refusal): events.put(.lost(reason: "\(refusal)"))
                }
                left.wait()
                if case .refused(let refusal) = end { throw refusal }
            } catch let refusal as SnapshotRefused {
                events.put(.refused(reason: "\(refusal)"))
                pause = GuestService.pauseAfterRefusal
            } catch let turnedAway as TurnedAway {
                events.put(.unlinked(.turnedAway("\(turnedAway)")))
            } catch {
                events.put(.unlinked(.unreachable("\(error)")))
            }
            // Only a link that brought pages resets the pause: a server may accept and hang up each time.
            if fetcher.progress.pagesResident > before { pause = GuestService.firstPause }
            if stopping.wait(seconds: pause) { return }
            pause = min(GuestService.longestPause, pause * 2)
        }
    }

    private var figures: String {
        let progress = fetcher.progress
        let service = LatencySummary(fetcher.service)
        return
            "\(progress.pagesResident) of \(progress.pagesTotal) pages are resident; this worker placed "
            + "\(progress.demand) on demand, \(progress.prefetched + progress.pushed + progress.zero) ahead; the guest "
            + "dropped \(progress.removed) before they came, and had \(progress.found) already; a fault took \(Int(service.p50)) µs at the median, "
            + "\(Int(service.p99)) µs at the 99th percentile"
    }
}

/// A failure that ends this worker, so that another one is started.
struct ServiceFailure: Error, CustomStringConvertible {
    let description: String
}
