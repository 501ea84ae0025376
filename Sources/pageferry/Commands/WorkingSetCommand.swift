import ArgumentParser
import WorkingSet

/// Shows recorded working sets, and merges them.
struct WorkingSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "workingset",
        abstract: "Show recorded working sets of a snapshot and how they overlap, and merge them.",
        discussion: """
            Examples:

              pageferry workingset monday.ws tuesday.ws
              pageferry workingset monday.ws tuesday.ws --merge both.ws
            """
    )

    @Argument(help: ArgumentHelp("Records that attach --record has written.", valueName: "file"))
    var files: [String]

    @Option(
        help: ArgumentHelp(
            "Write one record with the pages of all records to this file. Pages that are in more records come first. Pages "
                + "in equally many records follow in the order of their mean position. An existing file is replaced, even "
                + "one of the records.",
            valueName: "out"
        )
    )
    var merge: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        guard merge != "" else { throw ValidationError("--merge takes the name of a file") }
    }

    func run() throws {
        EndSignals.watch()
        let records = try files.map { (name: $0, set: try WorkingSet(contentsOf: $0)) }
        let merged = try merge.map { (name: $0, set: try merging(records)) }
        if let merged {
            try merged.set.write(to: merged.name)
            if merged.set.runs.count == WorkingSet.maxRuns {
                Terminal.say(
                    "pageferry workingset: \(merged.name) has \(WorkingSet.maxRuns) runs, the most that a record can hold; "
                        + "the last pages may be missing"
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
