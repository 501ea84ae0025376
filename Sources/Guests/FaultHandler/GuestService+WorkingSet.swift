import LinuxSystem
import Logging
import PageFetcher
import PageProtocol
import Synchronization
import Telemetry
import WorkingSet

/// The recording of a restored guest's working set, and the fetching of a recorded one.
extension GuestService {
    /// Pages in one request for the working set: one run is placed while the next is still under way.
    private static let longestRun: UInt32 = 16

    private func memory(of snapshot: SnapshotIdentity) throws(WorkingSetError) -> WorkingSet.Memory {
        try WorkingSet.Memory(pageSize: UInt32(task.regions[0].pageSize), byteCount: snapshot.byteCount)
    }

    /// Writes the record of the touched pages, unless it was written before.
    func writeRecord() { isRecordLossTold.withLock { writeRecord(isLossTold: &$0) } }

    private func writeRecord(isLossTold: inout Bool) {
        guard let path = task.settings.record, let touches = memory.touches, let snapshot = memory.snapshot,
            !memory.isRecorded
        else { return }
        do throws(WorkingSetError) {
            let set = try WorkingSet(
                pages: touches.pages,
                of: memory(of: snapshot),
                window: task.settings.recordMilliseconds
            )
            try set.write(to: path)
            memory.isRecorded = true
            let (pages, runs) = (counted(set.pageCount, "page"), counted(set.runs.count, "run"))
            logger.notice("\(task.name): \(pages) in \(runs) recorded in \(path)")
        } catch {
            // The write is retried when the guest ends, and only the first failure is logged.
            guard !isLossTold else { return }
            isLossTold = true
            logger.error("\(task.name): its working set is not recorded: \(error)")
        }
    }

    /// The recorded pages as runs of the guest's regions, in recorded order; empty if the record cannot be used.
    func workingSet(of snapshot: SnapshotIdentity) -> [PageRun] {
        guard let path = task.settings.prefetch else { return [] }
        do throws(WorkingSetError) {
            let set = try WorkingSet(contentsOf: path)
            try set.requireMemory(memory(of: snapshot))
            let pageSize = UInt32(task.regions[0].pageSize)
            let longest = min(GuestService.longestRun, UInt32(PageRun.maxCount(pageSize: pageSize)))
            return set.pieces(ofAtMost: longest).flatMap { runs(of: $0) }
        } catch {
            logger.error("\(task.name): the working set of \(path) is not fetched: \(error)")
            return []
        }
    }

    /// The parts of a run of the snapshot's pages that lie in the guest's regions.
    private func runs(of run: WorkingSet.Run) -> [PageRun] {
        task.regions.enumerated().compactMap { index, region in
            let first = region.offset / UInt64(region.pageSize)
            let begin = max(UInt64(run.first), first)
            let end = min(UInt64(run.end), first + UInt64(region.pageCount))
            guard begin < end else { return nil }
            return PageRun(region: UInt32(index), count: UInt32(end - begin), first: begin - first)
        }
    }
}
