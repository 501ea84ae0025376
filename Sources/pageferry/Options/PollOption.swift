import ArgumentParser
import LinuxSystem

/// How long threads that move pages poll before they sleep.
struct PollOption: ParsableArguments, Encodable {
    @Option(
        help: ArgumentHelp(
            """
            How long a thread that requests or answers pages may poll for one event before it sleeps, at most 10ms; 0: \
            not at all. A thread polls only when an event can be expected within this time, and not while other programs \
            want the processors.
            """,
            valueName: "time"
        ),
        transform: readTime
    )
    var poll = TimeSpan(PollBudget.usualLimit)

    func validate() throws {
        guard PollBudget.limits.contains(poll.duration) else {
            throw ValidationError(
                "--poll must be at most \(TimeSpan(PollBudget.limits.upperBound)), or 0 to never poll: a thread that polls "
                    + "for longer keeps a processor busy in vain"
            )
        }
    }
}
