import ArgumentParser
import Foundation

/// Shows agents and restored guests on the terminal, again and again.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch agents, handlers and snapshot servers on the terminal.",
        discussion: """
            An agent is named by its control socket. Handlers of restored guests and snapshot servers have none: name \
            them, or an agent, by the address of their --http. The table is drawn again every second; q or Ctrl-C ends \
            it. Without a terminal, the command prints the table once, and exits with status 1 if an address does not \
            answer.

            Examples:

              pageferry top /run/a.sock /run/b.sock
              pageferry top http:127.0.0.1:9101
            """
    )

    @Argument(
        help: ArgumentHelp(
            "Control sockets of agents, and addresses of --http after `http:`.",
            valueName: "address|http:address"
        ),
        transform: TopAddress.init(argument:)
    )
    var agents: [TopAddress]

    @OptionGroup var configurationOptions: ConfigurationOptions

    func run() async throws {
        let sources = agents.map { TopSource($0) }
        guard let screen = TopScreen() else {
            let looks = await TopCommand.looks(at: sources)
            Terminal.show(TopTable(looks).lines(width: nil))
            if looks.contains(where: { $0.error != nil }) { throw ExitCode(1) }
            return
        }
        EndSignals.take {
            screen.leave()
            Pageferry.exit(0)
        }
        screen.onQuit {
            screen.leave()
            Pageferry.exit(0)
        }
        while true {
            let looks = await TopCommand.looks(at: sources)
            let (width, height) = screen.size
            screen.draw(TopTable(looks).lines(width: width), height: height)
            try await Task.sleep(for: .seconds(1))
        }
    }

    /// Looks at all sources at the same time.
    private static func looks(at sources: [TopSource]) async -> [TopLook] {
        await withTaskGroup(of: (Int, TopLook).self) { group in
            for (index, source) in sources.enumerated() { group.addTask { (index, await source.look()) } }
            return await group.reduce(into: [(Int, TopLook)]()) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }
}
