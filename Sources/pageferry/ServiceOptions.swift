import ArgumentParser
import Logging

/// What all commands that serve have in common: how long a peer may be silent, and how much they say.
struct ServiceOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The longest silence of a peer before its connection counts as broken (default: 5s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var peerTimeout = TimeSpan(nanoseconds: 5_000_000_000)

    @Option(help: ArgumentHelp("The least that is logged.", valueName: "level"))
    var logLevel = Logger.Level.notice

    func logger(_ command: String) -> Logger {
        LineLog.logger(command, logLevel)
    }
}
