import Connections
import LinuxSystem
import Logging
import PageFetcher
import PageProtocol
import Telemetry

/// What a worker does when ``GuestFate`` has decided.
extension GuestService {
    func take(_ actions: [GuestAction], _ course: inout Course) throws {
        memory.lostSince = course.fate.record.lostSince
        for action in actions {
            switch action {
            case .connect: try threads.run("link") { [self] in keepLink() }
            case .attach(let snapshot, let absence):
                guard let link = course.link else { preconditionFailure("no link was reported") }
                let order = memory.fill
                try attach(link, snapshot, fetching: course.runs, filling: order ?? task.settings.fill)
                // A link without a bulk lane was made before the order, and is replaced.
                if link.bulk != nil { course.fill = order }
                guard let absence else { continue }
                let time = Duration.nanoseconds(Int64(clamping: absence))
                guard !course.isReordered else {
                    course.isReordered = false
                    continue
                }
                logger.notice("\(task.name) was reconnected to \(task.settings.source) after \(time.text)")
            case .remember(let snapshot):
                memory.remember(snapshot)
                logger.info("\(task.name): the file of its snapshot has new times, and the same content")
            case .hangUp: course.link?.close()
            case .detach:
                // Does not wait for the threads that place pages: a guest can hold them up.
                fetcher.hangUp()
                course.link = nil
                left.raise()
            case .hold(let loss):
                let (what, source) = (words(loss), task.settings.source)
                memory.isHeld = true
                let end = loss == .noMemory ? "there is some" : "\(source) serves the file that it was restored from"
                logger.error("\(what); it waits until \(end)")
            case .continue:
                memory.continued = course.fate.record.continued
                memory.isHeld = false
                logger.notice("\(task.name) gets its pages again")
            case .kill(let loss):
                let what = words(loss)
                do {
                    try PeerProcess.kill(process) {
                        // The wait for the process's end must not look as if this worker were stuck.
                        memory.beat = MonotonicClock.now()
                        return fetcher.isMemoryGone
                    }
                    logger.error("\(what); it is killed")
                } catch {
                    logger.error("\(what), and it cannot be killed: \(error)")
                    try take(course.fate.killFailed(), &course)
                }
            case .giveBack: course.isLetGo = fetcher.giveBack()
            case .report(.linkLost) where course.isReordered: break
            case .report(.linkLost(let reason)):
                logger.warning("\(task.name) has lost its link to \(task.settings.source): \(reason)")
            case .report(.unlinked(.unreachable(let reason))):
                logger.warning("\(task.name) has no link to its server yet: \(reason)")
            case .report(.unlinked(.turnedAway(let reason))):
                logger.warning("\(task.name) is turned away by \(task.settings.source), and retries: \(reason)")
            }
        }
    }

    private func attach(
        _ link: SnapshotLink,
        _ snapshot: SnapshotIdentity,
        fetching runs: [PageRun],
        filling rate: FillRate?
    ) throws {
        memory.remember(snapshot)
        try fetcher.attach(
            urgent: link.urgent,
            bulk: link.bulk.map { [$0] } ?? [],
            fetching: runs,
            filling: rate
        ) { [events] in events.put(.lane(link, $0)) }
    }

    private func words(_ loss: GuestLoss) -> String {
        let page = fetcher.longestWaited.map { "the page at byte \(task.offset(ofPage: $0.page, region: $0.region))" }
        let (source, time) = (task.settings.source, Duration.seconds(task.settings.giveUpSeconds).text)
        let reason =
            switch loss {
            case .refused(let reason): reason
            case .otherSnapshot: "\(source) serves another file than before"
            case .unlinked(.turnedAway(let reason)):
                "\(source) is there, but the guest has had no link to it for \(time): \(reason)"
            case .unlinked(let failure):
                "\(source) has been unreachable for \(time): \(failure?.reason ?? "no server was reached yet")"
            case .unanswered: "\(source) has not answered for \(time)"
            case .noMemory:
                "for \(time), it has waited for \(MemoryWant(fetcher.shortage ?? .memory, of: task.process))"
            case .unserved: "its workers keep exiting"
            }
        return "\(task.name) cannot get \(page ?? "its pages"): \(reason)"
    }
}
