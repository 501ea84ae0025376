import Foundation
import Glibc
import Testing

@Suite("Run leases, on real processes", .timeLimit(.minutes(2)))
struct LeaseCommandTests {
    private let workspace: Workspace
    private let lease: String

    init() throws {
        workspace = try Workspace()
        lease = "\(workspace.path)/vm"
    }

    /// Options of a small workload with this lease.
    private var options: [String] { ["--memory", "16MiB", "--lease", lease] }

    private func printed() throws -> Printed { try Printed(show("--json").output) }

    private func show(_ options: String...) throws -> Finished {
        try Executable.run(Executable.pageferry, ["lease", lease] + options)
    }

    private func owner() throws -> String {
        let records: [[String: Any]] = try printed().value("records")
        return try #require(records.last?["owner"] as? String)
    }

    private func states() throws -> [String] {
        let records: [[String: Any]] = try printed().value("records")
        return records.compactMap { $0["state"] as? String }
    }

    /// Starts another source with the lease, and ends it when it is ready.
    private func startAgain(_ more: String...) throws -> Finished {
        let arguments = ["source", "--qmp", workspace.file("again.sock")] + options + more
        let running = try Running(Executable.pageferry, arguments)
        defer { running.end() }
        if (try? running.line(holding: "ready", seconds: 30)) != nil { kill(running.pid, SIGTERM) }
        return try running.finish()
    }

    /// Brings `a` to send a RUN on which `b` has not started yet.
    private func permit(_ a: AgentProcess, _ b: AgentProcess) throws {
        let socket = try Printed(b.qmp("query-migrate"))
        let addresses: [[String: Any]] = try socket.value("return", "socket-address")
        let port = try #require(addresses.first?["port"] as? String)
        let begin = "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:\(port)\"}}"
        _ = try a.qmp(begin, "migrate-start-postcopy")
        for (agent, state) in [(a, "postcopy-active"), (b, "postcopy-device")] {
            let deadline = Date(timeIntervalSinceNow: 30)
            while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
                guard Date() < deadline else { throw TestFailure("never \(state)") }
            }
        }
    }

    @Test("a pending RUN starts nothing once the lease was taken over")
    func takeover() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        let b = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0", "--stopped", "--lease", lease])
        defer { b.end() }
        try permit(a, b)
        let gone = try owner()
        a.end()
        let taken = try show("--take", String(gone.prefix(8)))
        #expect(taken.status == 0, "\(taken)")
        let next = try Workspace()
        let successor = try AgentProcess.source(in: next, options)
        defer { successor.end() }
        let cont = try Executable.pageferry("cont", b.socket)
        let holder = try owner()
        #expect(cont.status == 1 && cont.errors.contains("the run lease 'vm': \(holder) runs"), "\(cont)")
        #expect(try successor.qmp("query-status").contains("\"running\":true"))
        #expect(try b.qmp("query-status").contains("\"running\":false"))
        #expect(try states() == ["holding", "released", "holding"])
    }

    @Test("a pending RUN starts nothing after the records were removed")
    func removal() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        let b = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0", "--stopped", "--lease", lease])
        defer { b.end() }
        try permit(a, b)
        a.end()
        try FileManager.default.removeItem(atPath: lease)
        let next = try Workspace()
        let successor = try AgentProcess.source(in: next, options)
        defer { successor.end() }
        let cont = try Executable.pageferry("cont", b.socket)
        #expect(cont.status == 1 && cont.errors.contains("RUN names epoch 1"), "\(cont)")
        #expect(try successor.qmp("query-status").contains("\"running\":true"))
        #expect(try b.qmp("query-status").contains("\"running\":false"))
    }

    @Test("a start that a disk lock refuses leaves no record")
    func diskLock() throws {
        let disk = workspace.file("disk")
        try Data(count: 4096).write(to: URL(fileURLWithPath: disk))
        let holder = try AgentProcess.source(in: workspace, ["--memory", "16MiB", "--device", "disk:\(disk)"])
        let refused = try startAgain("--device", "disk:\(disk)")
        #expect(refused.status == 1 && refused.errors.contains("lock"), "\(refused)")
        #expect(try states() == [])
        holder.end()
        #expect(try startAgain("--device", "disk:\(disk)").status == 0)
        #expect(try states() == ["holding", "released"])
    }

    @Test("a start that the lease refuses releases the disk locks, and undoes the hook")
    func hook() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        let (hook, log) = (workspace.file("hook"), workspace.file("log"))
        try Data("#!/bin/sh\necho $1 >> \(log)\n".utf8).write(to: URL(fileURLWithPath: hook))
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: hook)
        let refused = try startAgain("--device", "hook:\(hook)")
        #expect(refused.status == 1 && refused.errors.contains("since epoch 1"), "\(refused)")
        #expect(try String(contentsOfFile: log, encoding: .utf8) == "start\nundo\n")
        #expect(try states() == ["holding"])
    }

    @Test("after an orderly exit the next start needs no confirmation by the operator", arguments: ["quit", "SIGTERM"])
    func orderlyEnd(how: String) throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        if how == "quit" { _ = try a.qmp("quit") } else { kill(a.running.pid, SIGTERM) }
        let finished = try a.running.finish()
        #expect(finished.status == 0, "\(finished)")
        #expect(try states() == ["holding", "released"])
        #expect(try startAgain().status == 0)
        #expect(try states() == ["holding", "released", "holding", "released"])
    }

    @Test("a destination that exits orderly with its workload releases the lease, and a source without one does not")
    func arrived() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        let b = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0", "--lease", lease])
        defer { b.end() }
        #expect(try Executable.migrate(a, b).status == 0)
        for (agent, expected) in [(a, ["holding", "holding"]), (b, ["holding", "holding", "released"])] {
            kill(agent.running.pid, SIGTERM)
            #expect(try agent.running.finish().status == 0)
            #expect(try states() == expected)
        }
    }

    @Test("an agent that quits during a migration, before RUN, releases its lease")
    func quitBeforeRun() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        let b = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0", "--stopped", "--lease", lease])
        defer { b.end() }
        let socket = try Printed(b.qmp("query-migrate"))
        let addresses: [[String: Any]] = try socket.value("return", "socket-address")
        let port = try #require(addresses.first?["port"] as? String)
        _ = try a.qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:\(port)\"}}", "quit")
        #expect(try a.running.finish().status == 0)
        #expect(try states() == ["holding", "released"])
    }

    @Test("an agent that quits while its RUN is pending keeps the lease, and says what to do")
    func quitAfterRun() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        let b = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0", "--stopped", "--lease", lease])
        defer { b.end() }
        try permit(a, b)
        let holder = try owner()
        _ = try a.qmp("quit")
        let finished = try a.running.finish()
        #expect(
            finished.errors.contains(
                "the run lease 'vm' is not released: a migration is under way: postcopy-active; once nobody runs the "
                    + "workload, release it as this says: pageferry lease \(lease)"
            ),
            "\(finished)"
        )
        let told = try Executable.pageferry("lease", lease)
        #expect("\(told)".contains("--take \(holder)"), "\(told)")
        #expect(try states() == ["holding"])
    }

    @Test("after a kill the next start needs a confirmation by the operator, and the message names the command")
    func kill9() throws {
        let a = try AgentProcess.source(in: workspace, options)
        let gone = try owner()
        a.end()
        let refused = try startAgain()
        let command = "pageferry lease \(lease) --take \(gone)"
        #expect(refused.status == 1)
        #expect(
            refused.errors.contains(
                "the run lease 'vm': \(gone) runs the workload, or has committed to start it, since epoch 1; "
                    + "if that agent is gone for good: \(command)\n"
            ),
            "\(refused)"
        )
        let words = command.split(separator: " ").dropFirst().map(String.init)
        #expect(try Executable.run(Executable.pageferry, words).status == 0)
        #expect(try startAgain().status == 0)
    }

    @Test("a lease is taken over only from the owner of the newest record, once")
    func wrongOwner() throws {
        let a = try AgentProcess.source(in: workspace, options)
        let gone = try owner()
        a.end()
        let wrong = try show("--take", String(repeating: "0", count: 32))
        #expect(wrong.status == 1 && wrong.errors.contains("; \(gone) runs the workload"), "\(wrong)")
        #expect(wrong.errors.contains("gone for good: pageferry lease \(lease) --take \(gone)"), "\(wrong)")
        #expect(try states() == ["holding"])
        #expect(try show("--take", gone).status == 0)
        let again = try show("--take", gone)
        #expect(again.status == 0 && again.errors.contains("is already released"), "\(again)")
        #expect(again.output.contains("Nobody runs the workload: any agent may start it."))
        #expect(try states() == ["holding", "released"])
    }

    @Test("taking over a destination's lease also names its source, which may have the workload back")
    func bothOwners() throws {
        let a = try AgentProcess.source(in: workspace, options)
        let (source, destination) = (try owner(), String(repeating: "5", count: 32))
        a.end()
        try write(epoch: 2, "pageferry run lease 1\nepoch 2\nowner \(destination)\ntoken 7\nstarted yes\n")
        let command = "pageferry lease \(lease) --take \(destination) --take \(source)"
        let refused = try startAgain()
        #expect(refused.status == 1 && refused.errors.contains(command), "\(refused)")
        for owner in [destination, source] {
            let one = try show("--take", owner)
            #expect(one.status == 1 && one.errors.contains(command), "\(one)")
        }
        #expect(try show().output.contains(command))
        #expect(try show("--take", destination, "--take", source).status == 0)
        #expect(try states() == ["holding", "holding", "released"])
        #expect(try startAgain().status == 0)
    }

    @Test("a lease is shown in words, with one line for each epoch and the newest marked")
    func words() throws {
        let a = try AgentProcess.source(in: workspace, options)
        let first = try owner()
        a.end()
        _ = try show("--take", first)
        let shown = try show()
        #expect(shown.status == 0)
        #expect(
            shown.output == """
                1  \(first)  runs the workload, or has committed to start it
                2  \(first)  released: nobody runs the workload  <- newest
                Nobody runs the workload: any agent may start it.

                """
        )
        #expect(try printed().value("schema") == "pageferry.lease/1")
        #expect(try printed().value("summary") == "Nobody runs the workload: any agent may start it.")
    }

    @Test("each command reports records that are damaged, missing, or of the last epoch")
    func badRecords() throws {
        let a = try AgentProcess.source(in: workspace, options)
        a.end()
        try write(epoch: 3, "holding nothing")
        let damaged = try show()
        #expect(damaged.status == 1, "\(damaged)")
        #expect(
            damaged.output.contains("\n2  missing: records must not be removed\n3  the record is damaged  <- newest")
        )
        #expect(damaged.errors.contains("the record \(lease)/3 is damaged"), "\(damaged)")
        let owner = String(repeating: "5", count: 32)
        #expect(try show("--take", owner).errors.contains("the run lease record \(lease)/3 is damaged"))
        #expect(try startAgain().errors.contains("the run lease record \(lease)/3 is damaged"))
        let last = UInt64.max
        let other = String(repeating: "6", count: 32)
        try write(epoch: last, "pageferry run lease 1\nepoch \(last)\nowner \(other)\ntoken 0\nstarted yes\n")
        let late = try startAgain()
        #expect(late.status == 1 && late.errors.contains("no record can follow it; use another name"), "\(late)")
        #expect(!late.errors.contains("--take"), "\(late)")
        try write(epoch: last, "pageferry run lease 1\nepoch \(last)\nowner \(owner)\ntoken 0\nstarted yes\n")
        let shown = try show()
        #expect(shown.status == 0, "\(shown)")
        #expect(shown.output.contains("4 to 18446744073709551614  missing"), "\(shown)")
        #expect(shown.output.contains("no epoch follows 18446744073709551615"), "\(shown)")
        let reason = "epoch 18446744073709551615 of a run lease is the last one"
        let taken = try show("--take", owner)
        #expect(taken.status == 1 && taken.errors.contains(reason), "\(taken)")
        try write(epoch: last, "pageferry run lease 1\nepoch \(last)\nowner \(owner)\ntoken 0\nstarted no\n")
        let refused = try startAgain()
        #expect(refused.status == 1 && refused.errors.contains(reason), "\(refused)")
    }

    @Test(
        "a lease with a damaged newest record is taken over from its writer and from the previous owner",
        arguments: ["file", "pipe", "folder", "link"]
    )
    func damagedNewest(kind: String) throws {
        let a = try AgentProcess.source(in: workspace, options)
        let gone = try owner()
        a.end()
        let file = "\(lease)/2"
        switch kind {
        case "file": try write(epoch: 2, "")
        case "pipe": mkfifo(file, 0o600)
        case "folder": mkdir(file, 0o700)
        default: symlink("1", file)
        }
        let command = "pageferry lease \(lease) --take damaged --take \(gone)"
        let shown = try show()
        #expect(shown.status == 1 && shown.errors.contains(command), "\(shown)")
        let refused = try startAgain()
        let words = "the run lease record \(file) is damaged; see: pageferry lease \(lease)"
        #expect(refused.status == 1 && refused.errors.contains(words), "\(refused)")
        for takes in [["--take", gone], ["--take", "damaged"], ["--take", "damaged", "--take", "01234567"]] {
            let finished = try Executable.run(Executable.pageferry, ["lease", lease] + takes)
            #expect(finished.status == 1 && finished.errors.contains(command), "\(finished)")
        }
        #expect(try states() == ["holding", "damaged"])
        let taken = try show("--take", "damaged", "--take", gone)
        #expect(taken.status == 0, "\(taken)")
        #expect(try states() == ["holding", "damaged", "released"])
        let again = try show("--take", "damaged")
        #expect(again.status == 0 && again.errors.contains("is already released"), "\(again)")
        #expect(try startAgain().status == 0)
        #expect(try states() == ["holding", "damaged", "released", "holding", "released"])
    }

    @Test("an agent that cannot release its lease when it exits says so, and exits with status 1")
    func unreleased() throws {
        let a = try AgentProcess.source(in: workspace, options)
        defer { a.end() }
        try write(epoch: 2, "")
        kill(a.running.pid, SIGTERM)
        let finished = try a.running.finish()
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains("the run lease 'vm' is not released: the run lease record"), "\(finished)")
    }

    private func write(epoch: UInt64, _ text: String) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(lease)/\(epoch)"))
    }

    @Test("a folder that is not a store, or lacks the workload, is reported and left unchanged")
    func noStore() throws {
        let none = try show()
        #expect(none.status == 1 && none.errors.contains("\(workspace.path) is no run lease store"), "\(none)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: workspace.path) == [])
        #expect(try startAgain().status == 0)
        lookAt("\(workspace.path)/other", status: 0, "No agent owns the lease: any agent may start the workload.")
        lookAt("\(workspace.path)/other", "--take", "01234567", status: 1, "has no record")
    }

    private func lookAt(_ arguments: String..., status: Int32, _ words: String) {
        let finished = try? Executable.run(Executable.pageferry, ["lease"] + arguments)
        #expect(finished?.status == status)
        #expect(finished.map { $0.output + $0.errors }?.contains(words) == true, "\(finished as Any)")
    }

    @Test(
        "wrong usage exits with status 2",
        arguments: [
            [], ["none"], ["vm"], ["/srv/leases/"], ["/tmp/vm", "--take", "0123456"],
            ["/tmp/vm", "--take", "ABCDEF01"],
            ["/tmp/vm", "--take", String(repeating: "0", count: 33)], ["/tmp/vm", "--take"], ["/tmp/vm", "--remove"],
        ]
    )
    func usage(arguments: [String]) throws {
        let finished = try Executable.run(Executable.pageferry, ["lease"] + arguments)
        #expect(finished.status == 2 && finished.output.isEmpty, "\(finished)")
    }

    @Test("--help has an example of showing and of taking over")
    func help() throws {
        let finished = try Executable.pageferry("lease", "--help")
        #expect(finished.status == 0)
        for example in ["pageferry lease /srv/leases/vm-7\n", "pageferry lease /srv/leases/vm-7 --take 5f0c93d2"] {
            #expect(finished.output.contains(example), "\(finished)")
        }
    }
}
