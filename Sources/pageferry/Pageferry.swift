import ArgumentParser
import Foundation

/// The command line: exit status 0 when the work is done, 1 when it failed, 2 when it was asked for wrongly.
@main
struct Pageferry: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pageferry",
        abstract: "Move a running workload to another host before its memory.",
        subcommands: [
            DemoCommand.self, SourceCommand.self, DestinationCommand.self, MigrateCommand.self, CancelCommand.self,
            RecoverCommand.self, ContCommand.self, StatusCommand.self, LeaseCommand.self, ServeCommand.self,
            AttachCommand.self, AttachWorkerCommand.self, MicroVMKeeperCommand.self, WorkingSetCommand.self,
            BenchCommand.self, ProbeCommand.self,
        ]
    )

    static func main() async {
        // A peer that has left is told by the result of a send.
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            end(with: error)
        }
        Foundation.exit(0)
    }

    private static func end(with error: any Error) -> Never {
        if let code = error as? ExitCode { Foundation.exit(code.rawValue) }
        guard exitCode(for: error) == .failure, !isUsage(error) else {
            // Help and usage errors, which the parser words itself.
            let isHelp = exitCode(for: error) == .success
            let text = fullMessage(for: error)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
            if isHelp { Terminal.show(lines) } else { lines.forEach(Terminal.say) }
            Foundation.exit(isHelp ? 0 : 2)
        }
        Terminal.say("pageferry: \(error)")
        Foundation.exit(1)
    }

    private static func isUsage(_ error: any Error) -> Bool {
        exitCode(for: error) == .validationFailure || error is ValidationError
    }
}
