import ArgumentParser
import RunLease

/// Shows a run lease, or releases it on behalf of an agent that is gone for good.
struct LeaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lease",
        abstract: "Show which agent may run a workload by its run lease, or release a lost agent's lease.",
        discussion: """
            An agent that exits cleanly releases its lease. If an agent was killed or its host is lost, its lease \
            stays, and no other agent can start the workload until you state by --take that the agent is gone for \
            good. Be sure: if that agent still runs the workload, two agents run it after the next start.

            Examples:

              pageferry lease /srv/leases/vm-7
              pageferry lease /srv/leases/vm-7 --take 5f0c93d2

            A lost destination may have given the workload back to its source before it was lost. Release such a lease \
            on behalf of both agents: give --take twice. If the newest record is damaged, --take damaged stands for \
            the agent that wrote it. Do not remove a damaged record: without it, two agents could run the workload.
            """
    )

    @Argument(
        help: ArgumentHelp("The directory of the lease and the workload's name, as in --lease.", valueName: "dir/name"),
        transform: readLease
    )
    var lease: LeaseOption

    @Option(
        help: ArgumentHelp(
            "Release the lease on behalf of this owner, which is gone for good: its instance id from the records, or at "
                + "least the first 8 digits of it; or 'damaged'. Repeat the option to name two owners.",
            valueName: "owner"
        )
    )
    var take: [String] = []

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        if case .none = lease { throw ValidationError("write DIR/NAME: the directory and the name of --lease") }
        for owner in take where owner != LeaseTable.damaged {
            let isHexadecimal = owner.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
            guard (8...32).contains(owner.utf8.count), isHexadecimal else {
                throw ValidationError("--take: an owner is 32 digits of 0-9 and a-f, or the first 8 or more of them")
            }
        }
    }

    func run() throws {
        EndSignals.watch()
        guard case .files(let directory, let workload) = lease else { return }
        let store = try FileRunLeaseStore(directory: directory, creates: false)
        if !take.isEmpty { try release(store, workload) }
        let table = LeaseTable(place: store.place(of: workload), try store.history(of: workload))
        if json { Terminal.show(json: try table.json()) } else { Terminal.show(table.lines) }
        guard table.isReadable else { throw Failure(table.summary) }
    }

    /// Releases the lease by a record for the next epoch; no RUN that was sent before can take that epoch then.
    private func release(_ store: FileRunLeaseStore, _ workload: String) throws {
        let place = store.place(of: workload)
        let history = try store.history(of: workload)
        if let last = history.last, last.record == nil {
            return try release(damaged: last.epoch, history, store, workload)
        }
        guard let newest = try store.newest(workload) else {
            throw Failure("\(place) has no record: no agent owns the lease, and any agent may start the workload")
        }
        guard newest.standing != .released else {
            return Terminal.say("pageferry lease: \(place) is already released: \(newest.sentence)")
        }
        guard !take.contains(LeaseTable.damaged) else {
            throw Failure("cannot release \(place): its newest record is not damaged; \(newest.sentence)")
        }
        let owners = Set(history.compactMap { $0.record?.owner })
        let runners = newest.possibleRunners(following: try store.predecessor(of: newest, for: workload))
        for owner in take {
            let meant = owners.filter { $0.hasPrefix(owner) }
            guard meant.count <= 1 else {
                throw Failure("cannot release \(place): \(owner) stands for several agents; \(newest.sentence)")
            }
            guard runners.contains(where: { $0.hasPrefix(owner) }) else {
                throw Failure(
                    "cannot release \(place): \(owner) does not have the lease; \(newest.sentence); if the owner is gone for "
                        + "good: " + LeaseTable.takeCommand(place, runners)
                )
            }
        }
        guard runners.allSatisfy({ runner in take.contains { runner.hasPrefix($0) } }) else {
            throw Failure(
                "cannot release \(place) for only one of \(runners.joined(separator: " and ")): the first took the lease "
                    + "to start the workload of the second, and may have given the workload back since; if both are gone for good: "
                    + LeaseTable.takeCommand(place, runners)
            )
        }
        guard case .lost(let other) = try store.propose(try newest.release(), following: newest, for: workload) else {
            return
        }
        guard other.standing != .released else { return }
        throw Failure("cannot release \(place): another record was written first; \(other.sentence)")
    }

    /// Releases the lease after a damaged record, whose owner is unknown.
    private func release(
        damaged epoch: UInt64,
        _ history: [(epoch: UInt64, record: LeaseRecord?)],
        _ store: FileRunLeaseStore,
        _ workload: String
    ) throws {
        let place = store.place(of: workload)
        let runners = LeaseTable.runners(by: history)
        let isSaid = runners.allSatisfy { runner in take.contains { runner.hasPrefix($0) } }
        guard isSaid, take.allSatisfy({ owner in runners.contains { $0.hasPrefix(owner) } }) else {
            throw Failure(
                "cannot release \(place) like this: the run lease record \(place)/\(epoch) is damaged, and its owner is "
                    + "unknown; if every agent that had this lease is gone for good: "
                    + LeaseTable.takeCommand(place, runners)
            )
        }
        guard try store.release(damaged: epoch, for: workload) else {
            throw Failure("cannot release \(place): its records have changed meanwhile; run this command again")
        }
    }
}
