import Foundation
import Testing
import WorkingSet

@Suite("Working sets", .timeLimit(.minutes(1)))
struct WorkingSetTests {
    private let workspace: Workspace

    init() throws { workspace = try Workspace() }

    private func record(_ name: String, _ pages: [UInt32], pageSize: UInt32 = 4096) throws -> String {
        let memory = try WorkingSet.Memory(pageSize: pageSize, byteCount: UInt64(pageSize) << 10)
        let path = workspace.file(name)
        try WorkingSet(pages: pages, of: memory, window: 2500).write(to: path)
        return path
    }

    @Test("the command shows records, their overlap, and the merged record")
    func table() throws {
        let a = try record("a.ws", Array(256..<512) + [7])
        let b = try record("b.ws", [7] + Array(384..<640))
        let merged = workspace.file("merged.ws")
        let finished = try Executable.pageferry("workingset", a, b, "--merge", merged)
        #expect(finished.status == 0, "\(finished)")
        #expect(
            finished.output == """
                \(a)
                  pages                   257 of 4 KiB, 1.0 MiB
                  of the snapshot         25.1 % of 4.0 MiB
                  runs                    2; 99.6 % of the pages in runs of 16 or more
                  window                  2.5 s
                  order                   256-511, 7

                \(b)
                  pages                   257 of 4 KiB, 1.0 MiB
                  of the snapshot         25.1 % of 4.0 MiB
                  runs                    2; 99.6 % of the pages in runs of 16 or more
                  window                  2.5 s
                  order                   7, 384-639

                overlap, as the Jaccard index
                  0.335                   \(a) and \(b)

                merged into \(merged)
                  pages                   385 of 4 KiB, 1.5 MiB
                  of the snapshot         37.6 % of 4.0 MiB
                  runs                    4; 99.7 % of the pages in runs of 16 or more
                  window                  2.5 s
                  order                   384-511, 7, 256-383, 512-639

                """,
            "\(finished)"
        )
        #expect(try WorkingSet(contentsOf: merged).pageCount == 385)
    }

    @Test("the JSON has the same keys with all options")
    func json() throws {
        let a = try record("a.ws", [3])
        let finished = try Executable.pageferry("workingset", "--json", a)
        #expect(
            finished.output == """
                {"merged":null,"overlaps":[],"records":[{"bytes":4096,"file":"\(a)","first_runs":[{"count":1,"first":3}],\
                "page_size":4096,"pages":1,"runs":1,"share":0.0009765625,"share_in_long_runs":0,\
                "snapshot_bytes":4194304,"window_ms":2500}],"schema":"pageferry.workingset/1"}

                """,
            "\(finished)"
        )
    }

    @Test("a record can be merged into itself")
    func intoItself() throws {
        let a = try record("a.ws", [1, 2])
        let b = try record("b.ws", [2, 3])
        let finished = try Executable.pageferry("workingset", a, b, "--merge", a, "--json")
        #expect(finished.status == 0, "\(finished)")
        #expect(try WorkingSet(contentsOf: a).runs.map(\.first) == [2, 1, 3])
    }

    @Test("records of different snapshots are shown, but not merged")
    func differentSnapshots() throws {
        let a = try record("a.ws", [1])
        let b = try record("b.ws", [1], pageSize: 2 << 20)
        let shown = try Executable.pageferry("workingset", a, b)
        #expect(shown.status == 0 && shown.output.contains("of different snapshots"), "\(shown)")
        let merged = workspace.file("merged.ws")
        let refused = try Executable.pageferry("workingset", a, b, "--merge", merged)
        expectFailure(refused, status: 1, holding: "cannot merge \(a) and \(b): they are of different snapshots")
        #expect(!FileManager.default.fileExists(atPath: merged))
    }

    @Test("a bad record is reported in one line, and nothing is written")
    func badRecord() throws {
        let a = try record("a.ws", [1])
        let torn = workspace.file("torn.ws")
        try Data(contentsOf: URL(fileURLWithPath: a)).dropLast().write(to: URL(fileURLWithPath: torn))
        let merged = workspace.file("merged.ws")
        let finished = try Executable.pageferry("workingset", a, torn, "--merge", merged)
        expectFailure(finished, status: 1, holding: "cannot use \(torn) as a working set: it is cut short")
        #expect(!FileManager.default.fileExists(atPath: merged))
        let missing = try Executable.pageferry("workingset", workspace.file("none.ws"))
        expectFailure(missing, status: 1, holding: "No such file or directory")
    }

    @Test(
        "wrong usage exits with status 2 and the usage",
        arguments: [["workingset"], ["workingset", "a", "--merge"], ["workingset", "a", "-x"]]
    )
    func wrongUse(arguments: [String]) throws {
        let finished = try Executable.run(Executable.pageferry, arguments)
        #expect(
            finished.status == 2 && finished.output.isEmpty
                && finished.errors.contains("see pageferry workingset --help"),
            "\(finished)"
        )
    }

    private func expectFailure(_ finished: Finished, status: Int32, holding words: String) {
        #expect(finished.status == status && finished.output.isEmpty, "\(finished)")
        #expect(finished.errors.contains(words), "\(finished)")
        #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
    }
}
