import LinuxSystem

/// Replaces the QMP commands in an agent's reasons by command lines of `pageferry`.
///
/// An agent's reasons name QMP commands, since any QMP client can control an agent. A user of `pageferry` types command
/// lines instead. No other code replaces them.
enum CommandWords {
    /// The texts in reasons, and the command lines that replace them; a longer text comes before its own prefix.
    static let table: [(qmp: String, typed: @Sendable (SocketAddress) -> String)] = [
        ("pageferry-destination-gone with has-run true", { "pageferry cancel --workload-is-lost \($0)" }),
        ("pageferry-destination-gone with has-run false", { "pageferry cancel --destination-is-gone \($0)" }),
        ("pageferry-source-gone", { "pageferry cancel --workload-is-lost \($0)" }),
        (
            "run migrate with resume at its source first",
            { "run pageferry recover --source SOURCE --destination \($0) --uri tcp:HOST:PORT first" }
        ),
        ("run migrate with resume", { "run pageferry recover --source \($0) --uri tcp:HOST:PORT" }),
        ("run migrate_cancel at its source", { _ in "run pageferry cancel at its source" }),
        ("run migrate_cancel", { "run pageferry cancel \($0)" }),
        ("migrate_cancel takes it back", { "pageferry cancel \($0) takes it back" }),
        ("run cont to resume it", { "run pageferry cont \($0) to resume it" }),
        ("look at the destination with query-migrate", { _ in "look at the destination with pageferry status" }),
        ("look again with query-migrate", { "look again with pageferry status \($0)" }),
        (
            "send migrate-incoming to an agent without a workload",
            { _ in "give --destination an agent that has none, started by pageferry destination" }
        ),
        (
            "send migrate to the agent that has it",
            { _ in "give --source the agent that has it, started by pageferry source" }
        ),
        (
            "send migrate to the agent there",
            { _ in "pageferry status shows which agent has it: give that one as --source" }
        ),
        ("to move it back, run migrate there", { "to move it back: \(back(to: $0))" }),
        (
            "follow it with query-migrate; once that shows completed, run migrate there to move it back",
            { "follow it with pageferry status DESTINATION; once that shows completed, move it back: \(back(to: $0))" }
        ),
        ("wait until query-migrate shows completed", { "wait until pageferry status \($0) shows completed" }),
        (
            "while query-migrate shows postcopy-paused or a recovery",
            { "while pageferry status \($0) shows postcopy-paused or a recovery" }
        ),
        (
            "nothing is left to start here: run migrate at the source again",
            { "nothing is left to start there: pageferry migrate --source SOURCE --destination \($0)" }
        ),
        (
            "query-migrate at the other agent shows",
            { _ in "pageferry status of the other agent shows" }
        ),
        ("run migrate-incoming first", { "run pageferry migrate --source SOURCE --destination \($0) first" }),
        ("run migrate first", { "run pageferry migrate --source \($0) --destination DESTINATION first" }),
        ("run cont first", { "run pageferry cont \($0) first" }),
        ("cont at the source", { "pageferry cont \($0)" }),
    ]

    /// The command that moves a workload back from its destination.
    private static func back(to source: SocketAddress) -> String {
        "pageferry migrate --source DESTINATION --destination \(source)"
    }

    /// The commands of `pageferry` that send QMP commands of other names.
    private static let senders = [
        "migrate_cancel": "cancel", "pageferry-destination-gone": "cancel", "pageferry-source-gone": "cancel",
        "migrate-recover": "recover", "migrate-set-capabilities": "migrate", "migrate-incoming": "migrate",
        "migrate-start-postcopy": "migrate",
    ]

    /// Returns the command of `pageferry` that sends a QMP command.
    static func sender(of qmp: String) -> String { senders[qmp] ?? qmp }

    /// Returns the reason of the agent at a control socket, with its QMP commands replaced by command lines.
    static func typed(_ reason: String, at agent: SocketAddress) -> String {
        var reason = reason
        for (qmp, typed) in table { reason.replace(qmp, with: typed(agent)) }
        return reason
    }
}
