import Foundation
import Testing

/// The commands of the README and of the articles for users.
@Suite("A block of commands")
struct HowToTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../..").standardized
    private static let articles = "Sources/pageferry/pageferry.docc"

    /// The blocks of an article that are text for a shell, without their indentation.
    private static func blocks(of file: String) throws -> [String] {
        let text = try String(contentsOf: root.appending(path: file), encoding: .utf8)
        var (blocks, lines, indent): ([String], [Substring]?, Int) = ([], nil, 0)
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let word = line.drop { $0 == " " }
            if word.hasPrefix("```") {
                if let done = lines {
                    // Blocks of another language name it.
                    blocks.append(done.joined(separator: "\n"))
                    lines = nil
                } else {
                    indent = line.count - word.count
                    lines = word == "```" ? [] : nil
                    if word != "```" { indent = -1 }
                }
                continue
            }
            if lines != nil { lines?.append(line.dropFirst(min(indent, line.prefix { $0 == " " }.count))) }
        }
        return blocks
    }

    /// The blocks that are not run, by words that they hold, and why.
    ///
    /// The options of their `pageferry` commands are checked all the same.
    private static let reasons = [
        "apt install ./pageferry_0.2.0_amd64.deb": "needs a package of a later release, and systemd"
    ]

    /// The articles whose blocks are run in their order.
    private static let run = ["TwoHosts", "ReadAReport", "RecoverAMigration", "SizeANode", "UpgradeTheHandler"]

    /// Runs blocks in a room of their own.
    private func perform(_ blocks: [String], within seconds: Double) throws -> Finished {
        let workspace = try Workspace()
        let script = blocks.enumerated().map { number, block in
            // A command in the background is a program that prints `ready`.
            let started = block.split(separator: "\n").count { $0.hasSuffix("&") }
            return "block \(number + 1)\n\(block)\n" + (started > 0 ? "agents \(started)\n" : "")
        }.joined()
        try script.write(toFile: workspace.file("script"), atomically: true, encoding: .utf8)
        return try Executable.run(
            "/usr/bin/unshare",
            [
                "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/bash",
                Workspace.fixture("howto.sh"), Executable.pageferry, workspace.file("script"),
            ],
            seconds: seconds
        )
    }

    @Test(
        "of a step-by-step article does what the article says",
        .enabled(if: geteuid() == 0, "needs root, for network namespaces"),
        .timeLimit(.minutes(4)),
        arguments: HowToTests.run
    )
    func stepByStep(article: String) throws {
        let blocks = try HowToTests.blocks(of: "\(HowToTests.articles)/\(article).md").filter { block in
            !HowToTests.reasons.keys.contains { block.contains($0) }
        }
        #expect(blocks.count >= 1)
        let finished = try perform(blocks, within: 200)
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.output.contains("block \(blocks.count)\n"), "\(finished)")
    }

    @Test(
        "of the README moves a workload between two hosts and back",
        .enabled(if: geteuid() == 0, "needs root, for network namespaces"),
        .timeLimit(.minutes(4))
    )
    func readme() throws {
        let blocks = try HowToTests.blocks(of: "README.md")
        func block(_ beginning: String) throws -> String {
            try #require(blocks.first { $0.hasPrefix(beginning) }, "the README has no block of \(beginning)")
        }
        // The two hosts are those of the article, and the agents are started as its reader starts them.
        let hosts = try #require(HowToTests.blocks(of: "\(HowToTests.articles)/TwoHosts.md").first)
        let destination = "ip netns exec b \(try block("pageferry destination")) &"
        let source = "ip netns exec a \(try block("pageferry source")) &"
        // The control socket is a file of both hosts, and so needs no ssh.
        let move = try block("ssh ").split(separator: "\n").map { line in
            line.hasPrefix("ssh ") ? "ln -s /run/pageferry-b.sock /tmp/b.sock" : "ip netns exec a \(line)"
        }.joined(separator: "\n")
        let back = "ip netns exec a \(try block("pageferry migrate"))"
        let finished = try perform([hosts, destination, source, move, back], within: 200)
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.output.split(separator: "\n").count { $0.hasPrefix("completed: ") } == 2, "\(finished)")
    }

    @Test("of any article has only commands and options that the program takes")
    func options() throws {
        let folder = HowToTests.root.appending(path: HowToTests.articles)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".md") }
        let files = ["README.md"] + names.sorted().map { "\(HowToTests.articles)/\($0)" }
        var checked = 0
        for file in files {
            for block in try HowToTests.blocks(of: file) {
                for line in block.replacing("\\\n", with: " ").split(separator: "\n") {
                    guard let words = HowToTests.command(in: line) else { continue }
                    checked += 1
                    let finished = try Executable.run(Executable.pageferry, ["config", "--config", "none"] + words)
                    #expect(finished.status == 0, "\(file): \(line)\n\(finished.errors)")
                }
            }
        }
        // If fewer lines were found, the blocks were not read and nothing was checked.
        #expect(checked > 40, "\(checked)")
    }

    /// The words of the command of `pageferry` in a line, without the program; nil if there is none to check.
    private static func command(in line: Substring) -> [String]? {
        let code = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)[0]
        let words = code.split(separator: " ").map(String.init)
        guard
            let at = words.firstIndex(where: { ["pageferry", "Scripts/demo"].contains($0) }),
            // Other programs take the name as an option's value.
            at == 0 || words[at - 1] == "b" || words[at - 1] == "a" || words[at - 1] == "until"
        else { return nil }
        var own = words[(at + 1)...].prefix { !["&", "|", ">", "&&"].contains($0) && !$0.hasSuffix(";") }
        if words[at] == "Scripts/demo" { own = ["demo"] + own }
        // Commands that take no options of a file.
        let others = ["config", "probe", "help", "top"]
        guard let first = own.first, !first.hasPrefix("-"), !others.contains(first) else { return nil }
        return Array(own)
    }
}
