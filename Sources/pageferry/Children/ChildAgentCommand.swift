import ArgumentParser
import LinuxSystem

/// A command that runs an agent.
protocol AgentProgram: AsyncParsableCommand, Encodable {
    var agentOptions: AgentOptions { get set }
}

extension AgentProgram {
    /// Makes the command that an agent in another process runs, with all options at their defaults.
    ///
    /// ``ChildAgent`` sets the control socket.
    static func withDefaults() throws -> Self { try parse(["--qmp", "unix:/"]) }
}

/// Runs an agent that another process has started as its ``ChildAgent``.
struct ChildAgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "child-agent", shouldDisplay: false)

    private static let programs: [any AgentProgram.Type] = [SourceCommand.self, DestinationCommand.self]

    @Option(transform: readControl)
    var qmp: SocketAddress

    @Argument(transform: { name in
        guard let program = programs.first(where: { $0._commandName == name }) else {
            throw ValidationError("write source or destination")
        }
        return program
    })
    var program: any AgentProgram.Type

    /// The options of the program, as ``PassedOptions`` writes them.
    @Argument
    var options: String

    func run() async throws {
        try await run(program)
    }

    private func run<Program: AgentProgram>(_ program: Program.Type) async throws {
        var program = try PassedOptions.read(program, from: options)
        program.agentOptions.qmp = [qmp]
        try await program.run()
    }
}
