import LinuxSystem
import Logging

/// Continues to serve the guests of a handler that has died.
///
/// The workers of a dead handler may still serve. Each of them is killed, as any worker may be, and a new one continues
/// from the guest's state. The userfaultfd is copied out of the old worker or out of the guest's own process.
struct Adoption: Sendable {
    let store: GuestStore
    let workers: ForkServer
    let roster: GuestRoster
    /// Keeps the memory of guests that cannot be served.
    let keeper: MemoryKeeper
    let settings: HandlerSettings
    let logger: Logger
    let report: GuestReporter?

    /// Nanoseconds in which the old worker of a guest must end.
    private static let patience: UInt64 = 5_000_000_000

    /// Serves a guest of an earlier handler until the guest has ended or is lost.
    ///
    /// A guest that cannot be served gets what `onLost` says. The files of such a guest stay where they are.
    func serve(_ names: GuestStore.Names) {
        var number: Int?
        var logger = logger
        logger[metadataKey: "process"] = "\(names.process)"
        defer { if let number { roster.remove(number) } }
        do {
            guard var session = try session(of: names, &number) else {
                logger.notice("process \(names.process) has ended since its handler died")
                return try store.forget(names)
            }
            session.run()
        } catch let served as ServedByOldWorker {
            logger.error("cannot adopt process \(names.process) of an earlier handler: \(served)")
        } catch {
            logger.error("cannot serve process \(names.process) of an earlier handler: \(error); \(lose(names))")
        }
    }

    /// Makes the session of a guest; nil if the guest has ended.
    ///
    /// The process that has handed the memory over may have been a relay for the process that uses the memory. If the
    /// relay has ended, the memory itself says whether the guest has.
    ///
    /// - Parameter number: becomes the guest's number on the roster.
    private func session(of names: GuestStore.Names, _ number: inout Int?) throws -> GuestSession? {
        defer { roster.settle(names.process) }
        let birth = try birth(of: names)
        let process = try PeerProcess.find(birth)
        let hasEnded = process == nil
        let record: GuestRecord
        let file: MemoryFile
        do {
            record = try store.record(names)
            file = try store.state(names)
        } catch {
            guard hasEnded, !store.isInUse(names) else { throw error }
            return nil
        }
        // The folder may be older than this boot.
        guard record.process == birth else { return nil }
        var copy = shared(store.userfaultfd(names, inode: record.userfaultfd))
        let isKept = copy != nil
        if hasEnded, try isGone(record, file, copy) { return nil }
        do {
            try replaceWorker(of: record, file, takingCopyTo: &copy)
            var claim: PoolClaim?
            switch process {
            case .some(let process):
                if copy == nil {
                    copy = shared(try Userfaultfd.find(inode: record.userfaultfd, in: process, serving: .eventRemove))
                }
                claim = PoolClaim(of: process, record.task.regions.map(\.range))
            case .none: break
            }
            guard let userfaultfd = try copy?.userfaultfd.duplicate() else {
                throw ServiceFailure(
                    description: "no process has its userfaultfd any more, so that its missing pages read as zeros"
                )
            }
            // Systemd drops what it keeps when the unit is stopped, and not only restarted.
            if !isKept { store.keep(userfaultfd, names) }
            let place = try roster.adopt(process, of: record.user, userfaultfd, as: record.task.name, claim)
            number = place
            return try GuestSession(
                adopting: record,
                userfaultfd,
                process,
                file,
                settings,
                in: store,
                workers,
                claiming: claim,
                logger: logger,
                reporting: report,
                showing: { [roster] in roster.show(place, $0) }
            )
        } catch {
            // The old worker may have had the last copy.
            do {
                if let copy { try keeper.keep([copy], of: record.user) }
            } catch let obstacle {
                throw ServiceFailure(
                    description: "\(error); its userfaultfd cannot be kept (\(obstacle)), so that its missing pages "
                        + "may read as zeros"
                )
            }
            throw error
        }
    }

    /// Whether the memory of a guest whose process has ended is gone.
    ///
    /// The old worker of the guest may have the only copy of the userfaultfd that this process can find. Without any
    /// copy, the memory counts as gone.
    private func isGone(
        _ record: GuestRecord,
        _ file: borrowing MemoryFile,
        _ stored: SharedUserfaultfd?
    ) throws -> Bool {
        var copy = stored
        if copy == nil, let (id, started) = try SessionMemory(file, of: record.task).worker,
            let worker = try PeerProcess.find(record.process.sibling(id, started: started))
        {
            copy = try self.copy(of: record.userfaultfd, in: worker)
        }
        return copy?.userfaultfd.isMemoryGone ?? true
    }

    private func birth(of names: GuestStore.Names) throws -> PeerProcess.Birth {
        guard let own = PeerProcess.Birth.own else {
            throw ServiceFailure(description: "/proc is not mounted, so that no process can be recognized")
        }
        return own.sibling(names.process, started: names.started)
    }

    /// Ends the guest's old worker, if it lives, and locks the guest's state.
    ///
    /// - Parameter copy: becomes the worker's copy of the guest's userfaultfd, if it is nil and there is a worker.
    /// - Throws: ``ServedByOldWorker`` if the worker's copy cannot be taken, which leaves the worker alive.
    private func replaceWorker(
        of record: GuestRecord,
        _ file: borrowing MemoryFile,
        takingCopyTo copy: inout SharedUserfaultfd?
    ) throws {
        let memory = try SessionMemory(file, of: record.task)
        let deadline = MonotonicClock.now() + Adoption.patience
        // The lock is held until the last process that has inherited it has ended.
        while try !file.lock() {
            if let (id, started) = memory.worker,
                let worker = try PeerProcess.find(record.process.sibling(id, started: started))
            {
                if copy == nil { copy = try self.copy(of: record.userfaultfd, in: worker) }
                try worker.send(.kill)
                if worker.waitForEnd(milliseconds: 1000) { logger.info("worker \(id) was ended") }
            }
            guard MonotonicClock.now() < deadline else {
                let worker = memory.worker.map { "worker \($0.id) does not end" } ?? "a process holds its state"
                throw ServiceFailure(description: worker)
            }
            MonotonicClock.sleep(nanoseconds: 5_000_000)
        }
    }

    private func shared(_ userfaultfd: consuming Userfaultfd?) -> SharedUserfaultfd? {
        guard let userfaultfd else { return nil }
        return SharedUserfaultfd(userfaultfd)
    }

    private func copy(
        of inode: UInt64,
        in worker: borrowing PeerProcess
    ) throws(ServedByOldWorker) -> SharedUserfaultfd? {
        do {
            return shared(try Userfaultfd.find(inode: inode, in: worker, serving: .eventRemove))
        } catch {
            // A worker that has ended meanwhile serves no guest.
            guard !worker.waitForEnd(milliseconds: 100) else { return nil }
            throw ServedByOldWorker(worker: worker.id, reason: "\(error)")
        }
    }

    /// The reason why a guest stays with the worker of the handler that has died.
    private struct ServedByOldWorker: Error, CustomStringConvertible {
        let worker: Int32
        let reason: String
        var description: String { "\(reason); its old worker \(worker) serves it on, and is not replaced if it dies" }
    }

    /// Applies the policy to a guest that cannot be served, and says what becomes of it.
    private func lose(_ names: GuestStore.Names) -> String {
        guard settings.onLost == .kill else { return "it waits for its pages for ever; end it" }
        do {
            guard let process = try PeerProcess.find(birth(of: names)) else {
                return "it has ended; end any other process that uses its memory"
            }
            try process.send(.kill)
            return "it is killed"
        } catch {
            return "it waits for its pages for ever, and cannot be killed: \(error); end it"
        }
    }
}
