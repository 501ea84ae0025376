import Foundation
import Testing

/// The examples of the package.
@Suite("An example", .timeLimit(.minutes(2)))
struct ExamplesTests {
    private static let packaging = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../Packaging").standardized.path

    @Test(
        "of a configuration file is one",
        arguments: [
            ("config.yaml", "attach"), ("examples/serve.yaml", "serve"), ("examples/agent.yaml", "destination"),
        ]
    )
    func configuration(file: String, command: String) throws {
        let path = "\(ExamplesTests.packaging)/\(file)"
        let words = ["--config", path] + (command == "destination" ? ["--qmp", "unix:/run/a.sock"] : [])
        let finished = try Executable.run(Executable.pageferry, ["config", command] + words)
        // The file of the package names no server yet.
        #expect(finished.status == (file == "config.yaml" ? 2 : 0), "\(finished)")
        // Every option that is left out is one, too.
        let text = try String(contentsOfFile: path, encoding: .utf8).replacing(/(?m)^  # (?=[a-z-]+: )/, with: "  ")
        let workspace = try Workspace()
        try text.write(toFile: workspace.file("all.yaml"), atomically: true, encoding: .utf8)
        let all = try Executable.pageferry("config", "--config", workspace.file("all.yaml"))
        #expect(all.status == 0, "\(all)")
    }

    @Test(
        "for Kubernetes and for Nomad is valid, and its configuration is one",
        .enabled(if: Checkers.python != nil, "the packages cannot be had: no network, or no python3-venv")
    )
    func orchestrators() throws {
        let finished = try Executable.run(
            try #require(Checkers.python),
            [Workspace.fixture("examples.py"), ExamplesTests.packaging, Executable.pageferry]
        )
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.output == "3 objects of Kubernetes, 1 job of Nomad, 2 configurations\n", "\(finished)")
    }

    @Test("of an image copies the package, and runs it without root")
    func image() throws {
        let text = try String(contentsOfFile: "\(ExamplesTests.packaging)/oci/Dockerfile", encoding: .utf8)
        let joined = text.replacing("\\\n", with: " ")
        let lines = joined.split(separator: "\n").filter { !$0.hasPrefix("#") }
        let instructions = lines.map { String($0.prefix { $0 != " " }) }
        #expect(instructions == ["FROM", "ARG", "COPY", "RUN", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"])
        for line in lines where line.hasPrefix("ENTRYPOINT") || line.hasPrefix("CMD") {
            let words = line.drop { $0 != "[" }
            #expect(try JSONDecoder().decode([String].self, from: Data(words.utf8)).count == 1)
        }
        // The shell reads what RUN runs.
        let run = try #require(lines.first { $0.hasPrefix("RUN ") }).dropFirst("RUN ".count)
        #expect(try Executable.run("/bin/sh", ["-n", "-c", String(run)]).status == 0)
        #expect(lines.contains("USER pageferry"))
    }
}

/// A Python environment with the checkers, kept from run to run.
private enum Checkers {
    /// The interpreter; nil if the packages cannot be installed.
    static let python: String? = {
        let folder = FileManager.default.homeDirectoryForCurrentUser.path + "/.cache/pageferry-tests/checkers"
        let python = "\(folder)/bin/python"
        if hasPackages(python) { return python }
        // What cannot be installed is missing below.
        _ = try? Executable.run("/usr/bin/env", ["python3", "-m", "venv", folder])
        _ = try? Executable.run(python, ["-m", "pip", "install", "--quiet", "kubernetes-validate", "python-hcl2"])
        return hasPackages(python) ? python : nil
    }()

    private static func hasPackages(_ python: String) -> Bool {
        FileManager.default.isExecutableFile(atPath: python)
            // A broken environment counts as one without the packages.
            && (try? Executable.run(python, ["-c", "import hcl2, kubernetes_validate, yaml"]))?.status == 0
    }
}
