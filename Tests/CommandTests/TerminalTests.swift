import Foundation
import Testing

/// What a person sees on a terminal, and what a program reads from a pipe.
@Suite("A terminal", .timeLimit(.minutes(1)))
struct TerminalTests {
    private static let hasTerminal = FileManager.default.isExecutableFile(atPath: "/usr/bin/script")

    /// What a command prints on a terminal, with variables such as `NO_COLOR=1`.
    private func onTerminal(_ command: String, _ variables: String...) throws -> String {
        let environment = "env -u NO_COLOR TERM=xterm \(variables.joined(separator: " "))"
        let words = "\(environment) '\(Executable.pageferry)' \(command)"
        return try Executable.run("/usr/bin/script", ["-q", "-c", words, "/dev/null"]).output
    }

    @Test("shows errors and missing features in colours, unless NO_COLOR is set", .enabled(if: hasTerminal))
    func colours() throws {
        #expect(try onTerminal("probe").contains("\u{1b}[1;32myes\u{1b}[0m  Linux"))
        #expect(try onTerminal("demo --memory 1").hasPrefix("\u{1b}[1;31merror:\u{1b}[0m the value '1' is invalid"))
        #expect(try onTerminal("probe", "NO_COLOR=").contains("\u{1b}["))
        for variable in ["NO_COLOR=1", "TERM=dumb"] {
            for command in ["probe", "demo --memory 1"] {
                let text = try onTerminal(command, variable)
                #expect(text.contains("yes") || text.contains("error:"))
                #expect(!text.contains("\u{1b}"), "\(text)")
            }
        }
    }

    @Test("is not what a pipe is: no colour goes there")
    func pipe() throws {
        let environment = ["-u", "NO_COLOR", "TERM=xterm"]
        let finished = try Executable.run("/usr/bin/env", environment + [Executable.pageferry, "probe"])
        #expect(finished.output.contains("yes  Linux") && !finished.output.contains("\u{1b}"))
        let wrong = try Executable.run("/usr/bin/env", ["TERM=xterm", Executable.pageferry, "demo", "--memory", "1"])
        #expect(wrong.errors.hasPrefix("error: "))
    }

    @Test("shows the report and no progress with --quiet", .enabled(if: hasTerminal))
    func quiet() throws {
        let loud = try onTerminal("demo --memory 16MiB --max-bandwidth 16MiB")
        #expect(loud.contains("\u{1b}[K") && loud.contains(" pages "))
        let quiet = try onTerminal("demo --memory 16MiB --max-bandwidth 16MiB --quiet")
        #expect(!quiet.contains("\u{1b}[K") && quiet.contains("completed"), "\(quiet)")
    }

    @Test("completes commands, options and values", arguments: ["bash", "zsh", "fish"])
    func completions(shell: String) throws {
        let script = try Executable.pageferry("--generate-completion-script", shell)
        #expect(script.status == 0)
        for word in ["attach", "give-up", "log-format", "config"] {
            #expect(script.output.contains(word), "\(shell) does not complete \(word)")
        }
        for hidden in ["child-agent", "fork-server"] {
            #expect(!script.output.contains(hidden), "\(shell) completes \(hidden), which is internal")
        }
        // A shell that is not installed cannot read its script.
        guard ["/bin/\(shell)", "/usr/bin/\(shell)"].contains(where: FileManager.default.isExecutableFile) else {
            return
        }
        let workspace = try Workspace()
        let path = workspace.file("completions")
        try script.output.write(toFile: path, atomically: true, encoding: .utf8)
        let read = try Executable.run("/usr/bin/env", [shell, "-n", path])
        #expect(read.status == 0, "\(read)")
        guard shell == "bash" else { return }
        let ask = """
            source \(path); COMP_WORDS=(pageferry attach --give); COMP_CWORD=2; COMP_LINE='pageferry attach --give'
            COMP_POINT=${#COMP_LINE}; _pageferry pageferry --give attach; echo "${COMPREPLY[@]}"
            """
        let answer = try Executable.run("/bin/bash", ["-c", ask])
        #expect(answer.output.contains("--give-up"), "\(answer)")
    }
}
