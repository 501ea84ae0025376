import ArgumentParser
import WorkingSet

/// Shows and merges records of working sets.
struct WorkingSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "workingset",
        abstract: "Show which pages of a snapshot are in records of working sets, how they overlap, and merge them.",
        discussion: """
            Examples:

              pageferry workingset monday.ws tuesday.ws
              pageferry workingset monday.ws tuesday.ws --merge both.ws
            """
    )

    @Argument(help: ArgumentHelp("The records.", valueName: "file"))
    var files: [String]

    @Option(
        help: ArgumentHelp(
            "Write one record with the pages of all: first those that more of them have, then in the order of their "
                + "mean place. It may be one of the files, which it then replaces.",
            valueName: "out"
        )
    )
    var merge: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        guard merge != "" else { throw ValidationError("--merge takes the name of a file") }
    }

    func run() throws {
        let records = try files.map { (name: $0, set: try WorkingSet(contentsOf: $0)) }
        let merged = try merge.map { (name: $0, set: try merging(records)) }
        if let merged {
            try merged.set.write(to: merged.name)
            if merged.set.runs.count == WorkingSet.maxRuns {
                Terminal.say(
                    "pageferry workingset: \(merged.name) is full with \(WorkingSet.maxRuns) runs; what would come last may "
                        + "be left out"
                )
            }
        }
        let table = WorkingSetTable(records, merged: merged)
        if json { Terminal.show(json: try table.json()) } else { Terminal.show(table.lines) }
    }

    private func merging(_ records: [(name: String, set: WorkingSet)]) throws -> WorkingSet {
        let (first, rest) = (records[0], records.dropFirst())
        if let other = rest.first(where: { $0.set.memory != first.set.memory }) {
            throw Failure(
                "cannot merge \(first.name) and \(other.name): they are of different snapshots, of \(first.set.memory) and "
                    + "of \(other.set.memory)"
            )
        }
        return try WorkingSet.merging(records.map { $0.set })
    }
}
