import Foundation
import Identity
import Testing

@testable import Switchover

@Suite("The article on the switchover")
struct ArticleTests {
    /// The states that a walk takes each state to, by the names of their cases.
    private typealias Transitions = [String: Set<String>]

    /// The transitions of a walk.
    private struct Walked {
        var source: Transitions = [:]
        var destination: Transitions = [:]
        /// The transitions that clients see.
        var visible = (source: Visible(), destination: Visible())
    }

    /// Transitions between the states that clients see, noted in little time, since a walk takes millions of steps.
    private struct Visible {
        private var isSeen = [Bool](repeating: false, count: 256 * 256)

        mutating func note(_ before: MigrationState, _ after: MigrationState) {
            isSeen[Visible.number(before) << 8 | Visible.number(after)] = true
        }

        private static func number(_ state: MigrationState) -> Int { withUnsafeBytes(of: state) { Int($0[0]) } }

        /// The transitions; a side that dies begins anew, which is none.
        var edges: Set<[MigrationState]> {
            var edges: Set<[MigrationState]> = []
            for before in MigrationState.allCases {
                for after in MigrationState.allCases where before != after && after != .none {
                    if isSeen[Visible.number(before) << 8 | Visible.number(after)] { edges.insert([before, after]) }
                }
            }
            return edges
        }
    }

    private static let walked = walk()

    @Test("lists the states of both machines, and the transitions that a walk takes")
    func states() throws {
        var (source, destination) = (ArticleTests.walked.source, ArticleTests.walked.destination)
        // A walk begins with a destination that waits for a source.
        var idle = DestinationMachine()
        #expect(idle.current == .none && idle.migrateIncoming() == .listen && idle.current == .awaiting)
        destination["none"] = ["awaiting"]
        // No world of the walk has an operator who takes the lease over; SourceMachineTests has that transition.
        source["renewing"]?.insert("held")
        // A side that dies begins anew, which is no transition of its machine.
        source = source.mapValues { $0.subtracting(["none"]) }
        destination = destination.mapValues { $0.subtracting(["none"]) }
        let article = try String(contentsOf: ArticleTests.article, encoding: .utf8)
        #expect(ArticleTests.transitions(under: "### States of the source", in: article) == source)
        #expect(ArticleTests.transitions(under: "### States of the destination", in: article) == destination)
    }

    @Test(
        "agrees with the comments of the states",
        arguments: [("source", "SourceMachine"), ("destination", "DestinationMachine")]
    )
    func comments(side: String, machine: String) throws {
        let article = try String(contentsOf: ArticleTests.article, encoding: .utf8)
        let code = try String(contentsOf: ArticleTests.sources.appending(path: "\(machine).swift"), encoding: .utf8)
        #expect(
            ArticleTests.transitions(inCommentsOf: code)
                == ArticleTests.transitions(under: "### States of the \(side)", in: article)
        )
    }

    @Test("sees only the transitions that clients are told of, and every one of them")
    func visibleTransitions() {
        let visible = ArticleTests.walked.visible
        #expect(Set(VisibleStates.sourceEdges) == visible.source.edges)
        // A walk begins with a destination that waits for a source.
        #expect(Set(VisibleStates.destinationEdges) == visible.destination.edges.union([[.none, .setup]]))
    }

    @Test("shows each state by the name that clients see", arguments: MigrationState.allCases)
    func names(state: MigrationState) throws {
        let article = try String(contentsOf: ArticleTests.article, encoding: .utf8)
        #expect(article.contains("`\(state.rawValue)`"))
    }

    @Test("names everything that an exit waits for, in the machine's order")
    func exitWaits() throws {
        let article = try String(contentsOf: ArticleTests.article, encoding: .utf8)
        let section = article.components(separatedBy: "### The exit of a destination\n").last ?? ""
        let rows = section.prefix { $0 != "#" }.split(separator: "\n").filter { $0.hasPrefix("| `") }
        #expect(rows.map { $0.dropFirst(3).prefix { $0 != "`" } } == ExitWait.allCases.map { "\($0)"[...] })
    }

    private static let sources = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "../../Sources/Values/Switchover")
    private static let article = sources.appending(path: "Switchover.docc/Switchover.md")

    /// Walks settings that together take every transition.
    private static func walk() -> Walked {
        var walked = Walked()
        var questions = Walk.Questions()
        questions.onStep = { before, after in
            if before.source.current != after.source.current {
                add("\(before.source.current)", "\(after.source.current)", to: &walked.source)
                walked.visible.source.note(before.source.state, after.source.state)
            }
            if before.destination.current != after.destination.current {
                add("\(before.destination.current)", "\(after.destination.current)", to: &walked.destination)
            }
            // A destination's visible state also changes with its start, in one state of its machine.
            let (earlier, later) = (before.destination.state, after.destination.state)
            if earlier != later { walked.visible.destination.note(earlier, later) }
        }
        let settings: [(World.Setting, Behaviour)] = [
            (World.Setting(policy: .wait, conts: 1, cancels: 0), .shipped),
            (World.Setting(policy: .wait, usesLease: true, conts: 1, cancels: 0, relinks: 0), .shipped),
            (World.Setting(conts: 0, cancels: 1, pausesBeforeSwitchover: true), .shipped),
            (World.Setting(startsStopped: true, conts: 1, relinks: 0), .shipped),
            (World.Setting(startsStopped: true, policy: .wait, conts: 2, cancels: 0), .shipped),
            (World.Setting(startsStopped: true, conts: 0, cancels: 0, relinks: 0, ends: 1), .shipped),
            (World.Setting(usesLease: true, conts: 0, cancels: 0), .shipped),
            (World.Setting(usesLease: true, conts: 0, cancels: 1, relinks: 0), .shipped),
            (World.Setting(conts: 0, cancels: 0, relinks: 0, tellsStart: false), .older),
            (World.Setting(conts: 0, cancels: 0, relinks: 0, operatorSpeaks: false, attaches: true), .shipped),
        ]
        for (setting, behaviour) in settings {
            let walk = Walk(from: World(setting), by: behaviour, checking: [.neverBothRun], asking: questions)
            #expect(walk.finding == nil && !walk.isTooLarge)
        }
        return walked
    }

    private static func add(_ before: String, _ after: String, to transitions: inout Transitions) {
        let (before, after) = (before.prefix { $0 != "(" }, after.prefix { $0 != "(" })
        if before != after { transitions[String(before), default: []].insert(String(after)) }
        if transitions[String(after)] == nil { transitions[String(after)] = [] }
    }

    /// Reads a table whose first column is a state, and whose last one the states that follow.
    private static func transitions(under heading: String, in article: String) -> Transitions {
        let section = article.components(separatedBy: "\(heading)\n").last ?? ""
        var transitions: Transitions = [:]
        for line in section.prefix(while: { $0 != "#" }).split(separator: "\n") where line.hasPrefix("| `") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard let state = cells.first, let next = cells.last else { continue }
            transitions[state.replacing("`", with: "")] = Set(
                next.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces).replacing("`", with: "") }
                    .filter { $0 != "end" }
            )
        }
        return transitions
    }

    /// Reads the states of an enum whose comments end with an arrow and the states that follow.
    private static func transitions(inCommentsOf code: String) -> Transitions {
        var transitions: Transitions = [:]
        var comment = ""
        let states = code.components(separatedBy: "enum State").last?.components(separatedBy: "\n    }\n").first ?? ""
        for line in states.split(separator: "\n").map({ $0.trimmingCharacters(in: .whitespaces) }) {
            if line.hasPrefix("///") {
                comment += line.dropFirst(3)
            } else if line.hasPrefix("case ") {
                let name = line.dropFirst(5).prefix { $0.isLetter }
                let next = comment.components(separatedBy: "→").dropFirst().first ?? ""
                transitions[String(name)] = Set(
                    next.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
                )
                comment = ""
            }
        }
        return transitions
    }
}
