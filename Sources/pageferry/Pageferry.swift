import ArgumentParser
import Dispatch
import Foundation
import LinuxSystem
import Logging
import Synchronization

/// The command `pageferry`.
///
/// ``ExitStatus`` has the exit statuses.
@main
struct Pageferry: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pageferry",
        abstract: "Move a running workload to another host before its memory.",
        version: Release.description,
        subcommands: [
            DemoCommand.self, SourceCommand.self, DestinationCommand.self, MigrateCommand.self, CancelCommand.self,
            RecoverCommand.self, ContCommand.self, StatusCommand.self, TopCommand.self, CompareCommand.self,
            LeaseCommand.self, ServeCommand.self, AttachCommand.self, ForkServerCommand.self,
            AttachKeeperCommand.self, MicroVMKeeperCommand.self, ChildAgentCommand.self, WorkingSetCommand.self,
            BenchCommand.self, ProbeCommand.self, ConfigCommand.self,
        ]
    )

    static func main() {
        // With SIGPIPE ignored, a send to a peer that has left returns EPIPE instead of ending the process.
        signal(SIGPIPE, SIG_IGN)
        StandardOutput.open()
        let given = Array(CommandLine.arguments.dropFirst())
        Invocation.current = Invocation(only: given)
        do {
            try UsageError.checkHelp(given)
            try UsageError.checkTwice(given)
            Invocation.current = try Invocation(given, ProcessInfo.processInfo.environment)
            var command = try parseAsRoot(Invocation.current.words)
            guard let command = command as? any AsyncParsableCommand else {
                // Such a command has no thread that it has not started itself.
                try command.run()
                exit(0)
            }
            start(command)
        } catch {
            end(with: error)
        }
    }

    private static func start(_ command: consuming sending any AsyncParsableCommand) -> Never {
        var command = command
        Task {
            do {
                try await command.run()
            } catch {
                end(with: error)
            }
            exit(0)
        }
        dispatchMain()
    }

    /// Ends the process; a result that could not be printed turns status 0 into 1.
    static func exit(_ status: Int32) -> Never {
        Foundation.exit(status == 0 && Terminal.hasLostOutput ? ExitStatus.failed.rawValue : status)
    }

    private static func end(with error: any Error) -> Never {
        if let code = error as? ExitCode { exit(code.rawValue) }
        if exitCode(for: error) == .success {
            // The parser reports help and the version as errors, whose message is the whole text.
            let text = fullMessage(for: error)
            Terminal.show(text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init))
            exit(0)
        }
        if exitCode(for: error) != .failure || isUsage(error) {
            Terminal.say("\(UsageError(error, of: Invocation.current))")
            exit(ExitStatus.usedWrongly.rawValue)
        }
        if LineLog.isInUse.load(ordering: .relaxed) {
            // A supervisor waits for the exit, and may not read standard error.
            StandardError.waitForRoom(milliseconds: 1000)
            let command = Invocation.current.words.first ?? ""
            switch LineLog.format {
            case .text: LineLog.write(Terminal.line("pageferry: \(error)"))
            case .json: LineLog.write(LineLog.line(.critical, of: command, "\(error)"))
            }
        } else {
            Terminal.say("pageferry: \(error)")
        }
        exit((error is FileChanged ? ExitStatus.snapshotChanged : .failed).rawValue)
    }

    private static func isUsage(_ error: any Error) -> Bool {
        exitCode(for: error) == .validationFailure || error is ValidationError
    }
}
