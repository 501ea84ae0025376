import Foundation
import Identity
import LinuxSystem
import Telemetry
import Testing

@testable import Orchestration

@Suite("What a person is told to type")
struct AdviceTests {
    private static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources")
    private let agent = SocketAddress.unix(path: "/a")
    private let other = SocketAddress.unix(path: "/b")

    /// The code of what agents say, each text in one piece.
    private func agentCode() throws -> String {
        try ["Values/Switchover", "Control/Controller"].map { target in
            let folder = AdviceTests.sources.appendingPathComponent(target)
            let files = try FileManager.default.subpathsOfDirectory(atPath: folder.path).filter {
                $0.hasSuffix(".swift")
            }
            return try files.map { try String(contentsOf: folder.appendingPathComponent($0), encoding: .utf8) }.joined()
        }
        .joined().replacing(/"\s*\+ "/, with: "")
    }

    @Test("stands for each QMP command that a reason names")
    func table() throws {
        let code = try agentCode()
        for (qmp, typed) in CommandWords.table {
            #expect(code.contains(qmp))
            #expect(typed(agent).contains("pageferry "))
            #expect(CommandWords.typed("why; \(qmp)", at: agent) == "why; \(typed(agent))")
        }
    }

    @Test("is named by no agent, which speaks to every QMP client")
    func agentsNameNoCommandLine() throws {
        let named = try agentCode().matches(
            of: /pageferry (cancel|cont|status|migrate|recover)\b|--[a-z]+-is-(gone|lost)/
        )
        #expect(named.map { String($0.0) } == [])
    }

    private func report(_ state: MigrationState, source: Bool = false, destination: Bool = false, holds: Bool)
        -> AgentReport
    {
        var report = AgentReport(instance: "")
        report.states = [MigrationState.none, state]
        report.source = source ? AgentReport.Source() : nil
        report.destination = destination ? AgentReport.Destination() : nil
        report.holdsWorkload = holds
        return report
    }

    @Test(
        "after a refused migrate follows from who has a workload",
        arguments: [
            (
                false, true, MigrationState.none,
                "may be swapped: pageferry migrate --source unix:/b --destination unix:/a"
            ),
            (true, true, .completed, "unix:/a and unix:/b have a workload each"), (false, false, .setup, nil),
            (true, false, .active, nil), (true, false, .setup, nil),
        ] as [(Bool, Bool, MigrationState, String?)]
    )
    func migrate(here: Bool, there: Bool, state: MigrationState, words: String?) {
        let advice = Advice.onMigrate(
            from: (agent, report(.none, holds: here)),
            to: (other, report(state, destination: true, holds: there))
        )
        #expect(words.map { advice?.contains($0) == true } ?? (advice == nil), "\(advice ?? "")")
    }

    @Test("names cancel at a source that may still have its workload back, and there alone")
    func undo() {
        let early = Advice.onCont(agent, report(.active, source: true, holds: true))
        #expect(early?.hasSuffix("pageferry status unix:/a, or end it with pageferry cancel unix:/a") == true)
        let late = Advice.onCont(agent, report(.postcopyActive, source: true, holds: false))
        #expect(late?.hasSuffix("pageferry status unix:/a") == true)
        #expect(Advice.onCont(agent, report(.completed, source: true, holds: false)) == nil)
        #expect(Advice.onRecover(agent, report(.postcopyPaused, source: true, holds: false)) == nil)
    }

    @Test("names the right side if recover or cancel was given the other one")
    func sides() {
        let paused = (agent, report(.postcopyPaused, source: true, holds: false))
        let arriving = (other, report(.postcopyPaused, destination: true, holds: true))
        let swapped = Advice.onRecover(from: arriving, to: paused)
        #expect(swapped?.contains("pageferry recover --source unix:/a --destination unix:/b --uri") == true)
        #expect(
            Advice.onRecover(other, arriving.1)?.contains("--source SOURCE --destination unix:/b --uri") == true
        )
        var restarted = report(.none, destination: true, holds: false)
        restarted.migration = "other"
        let lost = Advice.onRecover(from: paused, to: (other, restarted))
        #expect(lost?.hasSuffix("gone for good: pageferry cancel --workload-is-lost unix:/a") == true)
    }

    @Test("about a destination that is gone names the recoverable way first")
    func gone() {
        var paused = report(.postcopyPaused, source: true, holds: false)
        paused.source?.resumesOnWord = true
        #expect(
            Advice.ifDestinationIsGone(agent, paused)
                == "pageferry cancel --destination-is-gone unix:/a if the workload never ran there, where a process may "
                + "outlive its agent; pageferry cancel --workload-is-lost unix:/a if it did"
        )
    }

    @Test("after a cont that comes too late is to move the workload again")
    func lateCont() {
        let late = CommandWords.typed("nothing is left to start here: run migrate at the source again", at: other)
        #expect(late.hasSuffix("pageferry migrate --source SOURCE --destination unix:/b"))
    }

    @Test("after a cont at a destination whose source is dead is how to get the missing pages, or to give up")
    func contWithoutSource() {
        var paused = report(.postcopyPaused, destination: true, holds: true)
        paused.destination?.pages.total = 10
        paused.destination?.pages.demand = 9
        let note = Advice.afterCont(agent, paused)
        #expect(
            note?.contains("it lacks 1 page and stops when it needs one; pageferry recover") == true,
            "\(note ?? "")"
        )
        #expect(note?.hasSuffix("gone for good: pageferry cancel --workload-is-lost unix:/a") == true)
        #expect(Advice.afterCont(agent, report(.postcopyActive, destination: true, holds: true)) == nil)
        #expect(Advice.afterCont(agent, report(.postcopyPaused, source: true, holds: false)) == nil)
    }

    @Test("about two agents that both run the workload of one migration is how to stop one of them")
    func twoRunners() {
        var (here, there) = (
            report(.failed, source: true, holds: true), report(.postcopyPaused, destination: true, holds: true)
        )
        (here.runsHere, there.runsHere) = (true, true)
        (here.migration, there.migration) = ("1", "2")
        #expect(Advice.onTwoRunners((agent, here), (other, there)) == nil)
        there.migration = "1"
        let line = Advice.onTwoRunners((agent, here), (other, there))
        #expect(line?.contains("unix:/a and unix:/b both run the workload") == true, "\(line ?? "")")
        #expect(line?.hasSuffix("by pageferry cancel --workload-is-lost unix:/b") == true, "\(line ?? "")")
        there.runsHere = false
        #expect(Advice.onTwoRunners((agent, here), (other, there)) == nil)
    }

    @Test("names no QMP command")
    func noQMP() throws {
        // In one text, a field of the report is named, and in another an argument or a capability of QMP's own commands.
        let sentences = try agentCode().matches(of: /"(?:\\.|[^"\\])*"/).map { String($0.0) }.filter {
            $0.contains(" ") && !$0.contains("Parameter '") && !$0.contains("capability")
        }
        #expect(sentences.count > 100)
        for sentence in sentences {
            let typed = CommandWords.typed(sentence, at: agent)
            #expect(typed.matches(of: /migrate[-_][a-z]+|query-[a-z]+|pageferry-[a-z]+/).isEmpty, "\(typed)")
        }
        for command in ["migrate_cancel", "pageferry-source-gone", "migrate-recover", "migrate-set-capabilities"] {
            let failure = AgentFailure(agent: agent, command: command, reason: "why")
            #expect("\(failure)".matches(of: /^(cancel|recover|migrate) at unix:\/a: why$/).count == 1, "\(failure)")
        }
    }

    @Test("a number goes with the singular or the plural of what it counts")
    func plurals() {
        #expect([0, 1, 2].map { counted($0, "fault") } == ["0 faults", "1 fault", "2 faults"])
    }
}
