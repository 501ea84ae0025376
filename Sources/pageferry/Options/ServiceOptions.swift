import ArgumentParser
import Logging

/// The options of every command that serves: the timeout of peers, and logging.
struct ServiceOptions: ParsableArguments, Encodable {
    @Option(
        help: ArgumentHelp(
            "How long a peer may be silent before its connection counts as broken, at least 100ms (default: 5s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var peerTimeout = TimeSpan(nanoseconds: 5_000_000_000)

    @OptionGroup var pollOption: PollOption

    @Option(
        help: ArgumentHelp(
            "The lowest level that is logged. On SIGHUP, it is read again from the configuration file.",
            valueName: "level"
        )
    )
    var logLevel = Logger.Level.notice

    @Option(
        help: ArgumentHelp(
            "text: lines for people. json: one JSON object on each line, with the time, the level, the command, the "
                + "message, and what the line is about, such as the guest or the migration.",
            valueName: "text|json"
        )
    )
    var logFormat = LogFormat.text

    @Flag(
        inversion: .prefixedNo,
        help: "Begin each log line with its time in UTC (default: only if standard error is not a terminal)."
    )
    var logTimes: Bool?

    @OptionGroup var configurationOptions: ConfigurationOptions

    /// The shortest timeout.
    ///
    /// A peer is pinged four times within its timeout, and each ping takes a round trip.
    private static let leastPeerTimeout = TimeSpan(nanoseconds: 100_000_000)

    func validate() throws {
        guard peerTimeout.nanoseconds >= ServiceOptions.leastPeerTimeout.nanoseconds else {
            throw ValidationError(
                "--peer-timeout must be at least \(ServiceOptions.leastPeerTimeout): within \(peerTimeout) no peer can "
                    + "reliably answer a ping"
            )
        }
    }

    func logger(_ command: String) -> Logger {
        if let logTimes { LineLog.setTimes(logTimes) }
        LineLog.setFormat(logFormat)
        LineLog.setLevel(logLevel)
        return LineLog.logger(command)
    }
}

extension LogFormat: ExpressibleByArgument {}
