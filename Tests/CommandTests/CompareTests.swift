import Foundation
import Testing

@Suite("The command compare", .timeLimit(.minutes(2)))
struct CompareTests {
    @Test("shows the reports of two demos side by side, and calls no single measurement different")
    func demos() throws {
        let workspace = try Workspace()
        let folders = [workspace.file("one"), workspace.file("other")]
        for (folder, options) in zip(folders, [["--no-push"], ["--no-push", "--threads", "2"]]) {
            let words = ["demo", "--memory", "16MiB", "--quiet", "--report", folder] + options
            let finished = try Executable.run(Executable.pageferry, words)
            #expect(finished.status == 0, "\(finished)")
        }
        let table = try Executable.pageferry("compare", folders[0], folders[1])
        #expect(table.status == 0 && table.errors.isEmpty, "\(table)")
        #expect(table.output.hasPrefix("A: \(folders[0])/report.json\nB: \(folders[1])/report.json\n"))
        for line in table.output.split(separator: "\n").dropFirst(2) where !line.contains("More than noise") {
            #expect(line.count <= 92, "\(line)")
        }
        #expect(table.output.contains(/\ndowntime .* × [0-9.]+  one measurement each\n/), "\(table)")
        #expect(table.output.contains(/\nstall p50 .*(within noise|differs|too few waits)\n/), "\(table)")
        #expect(table.output.hasSuffix("repeat both migrations to see how they scatter.\n"), "\(table)")

        // A report against itself, given as the file.
        let json = try Executable.pageferry("compare", "--json", folders[0], "\(folders[0])/report.json")
        let printed = try Printed(json.output)
        #expect(try printed.value("schema") == "pageferry.compare/1")
        let figures: [[String: Any]] = try printed.value("figures")
        for figure in figures {
            #expect(
                Set(figure.keys) == ["field", "unit", "a", "b", "ratio", "verdict", "a_bounds", "b_bounds"],
                "\(figure)"
            )
            #expect(["one_measurement_each", "within_noise", "too_few_waits"].contains(figure["verdict"] as? String))
            if let ratio = figure["ratio"] as? Double { #expect(ratio == 1, "\(figure)") }
        }
        let median = figures.first { $0["field"] as? String == "stall_us.p50" }
        #expect(median?["verdict"] as? String == "within_noise")
    }

    @Test(
        "says in one line what it cannot read",
        arguments: [
            ("none", "check the path"), ("empty", "check the path"), ("text", "its JSON is cut off or broken"),
            ("cut", "its JSON is cut off or broken"), ("bench", "its format is pageferry.bench/1"),
            ("next", "its format is pageferry.report/2, and not pageferry.report/1"),
            ("large", "give a file of at most"),
        ]
    )
    func unreadable(name: String, reason: String) throws {
        let workspace = try Workspace()
        let whole = workspace.file("whole")
        let made = try Executable.pageferry("demo", "--memory", "1MiB", "--quiet", "--report", whole)
        #expect(made.status == 0, "\(made)")
        let text = try String(contentsOfFile: "\(whole)/report.json", encoding: .utf8)
        try FileManager.default.createDirectory(atPath: workspace.file("empty"), withIntermediateDirectories: false)
        let texts = [
            "text": "a\u{1b}[31m", "cut": String(text.dropLast(text.count / 2)),
            "bench": #"{"schema":"pageferry.bench/1"}"#,
            "next": text.replacing("pageferry.report/1", with: "pageferry.report/2"), "large": "",
        ]
        for (name, text) in texts { try text.write(toFile: workspace.file(name), atomically: false, encoding: .utf8) }
        truncate(workspace.file("large"), 1 << 30)
        for words in [[whole, workspace.file(name)], [workspace.file(name), whole]] {
            let finished = try Executable.run(Executable.pageferry, ["compare"] + words)
            #expect(finished.status == 1 && finished.output.isEmpty, "\(finished)")
            #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
            #expect(finished.errors.contains(reason) && finished.errors.contains(workspace.file(name)), "\(finished)")
        }
    }
}
