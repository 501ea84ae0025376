import ArgumentParser
import RunLease

/// Shows a run lease, and takes it over for whoever comes after an agent that is gone.
struct LeaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lease",
        abstract: "Show who may run a workload by its run lease, or release it for an agent that is gone.",
        discussion: """
            Agents that end orderly release their lease. Of one that was killed, or whose host is lost, the lease stays: \
            no other start is allowed until you say that this agent is gone for good. Say so only when it is: if that \
            agent still runs the workload, two run after the next start. Examples:

              pageferry lease /srv/leases/vm-7
              pageferry lease /srv/leases/vm-7 --take 5f0c93d2

            A destination that took the lease may have let its source have the workload back before it was lost. Such a \
            lease is taken over from both: give --take twice.
            """
    )

    @Argument(
        help: ArgumentHelp("The folder of the leases and the workload's name, as in --lease.", valueName: "dir/name"),
        transform: readLease
    )
    var lease: LeaseOption

    @Option(
        help: ArgumentHelp(
            "Release the lease on behalf of this owner, which is gone for good: its instance id as the records show it, "
                + "or the first 8 digits or more. Repeat it where a source may have its workload back.",
            valueName: "owner"
        )
    )
    var take: [String] = []

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if case .none = lease { throw ValidationError("write DIR/NAME: the folder and the name that --lease has") }
        for owner in take {
            let isHexadecimal = owner.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
            guard (8...32).contains(owner.utf8.count), isHexadecimal else {
                throw ValidationError("--take: an owner is 32 digits of 0-9 and a-f, or the first 8 or more of them")
            }
        }
    }

    func run() throws {
        guard case .files(let directory, let workload) = lease else { return }
        let store = try FileRunLeaseStore(directory: directory, creates: false)
        if !take.isEmpty { try release(store, workload) }
        let table = LeaseTable(place: store.place(of: workload), try store.history(of: workload))
        if json { Terminal.show(json: try table.json()) } else { Terminal.show(table.lines) }
        guard table.isReadable else { throw Failure(table.summary) }
    }

    /// Writes the record after the newest: every RUN that is still out finds its epoch taken.
    private func release(_ store: FileRunLeaseStore, _ workload: String) throws {
        let place = store.place(of: workload)
        guard let newest = try store.newest(workload) else {
            throw Failure("\(place) has no record: nobody has it, and any agent may start the workload")
        }
        guard newest.standing != .released else {
            return Terminal.say("pageferry lease: \(place) needs no taking over: \(newest.sentence)")
        }
        let history = try store.history(of: workload)
        let owners = Set(history.compactMap { $0.record?.owner })
        let runners = newest.possibleRunners(following: try store.predecessor(of: newest, for: workload))
        for owner in take {
            let meant = owners.filter { $0.hasPrefix(owner) }
            guard meant.count <= 1 else {
                throw Failure("cannot take \(place) over: \(owner) stands for several agents; \(newest.sentence)")
            }
            guard runners.contains(where: { $0.hasPrefix(owner) }) else {
                throw Failure("cannot take \(place) over: it is not \(owner)'s; \(newest.sentence)")
            }
        }
        guard runners.allSatisfy({ runner in take.contains { runner.hasPrefix($0) } }) else {
            throw Failure(
                "cannot take \(place) over from one of \(runners.joined(separator: " and ")): the first took the lease "
                    + "for a RUN of the second, and may have let the second have the workload back since; if both are gone "
                    + "for good: \(LeaseTable.takeCommand(place, runners))"
            )
        }
        guard case .lost(let other) = try store.propose(try newest.release(), following: newest, for: workload) else {
            return
        }
        guard other.standing != .released else { return }
        throw Failure("cannot take \(place) over: a newer record came first; \(other.sentence)")
    }
}
