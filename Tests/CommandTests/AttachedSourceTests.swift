import Foundation
import LinuxSystem
import Testing

/// Programs that know nothing of migration but the client in `Tests/Fixtures`, moved between hosts while they run.
@Suite("A program that attaches with its workload", .timeLimit(.minutes(1)))
struct AttachedSourceTests {
    /// Pages of the virtual machine's guest.
    private static let guestPages = 2048.0

    /// Builds the virtual machine monitor, whose guest has 8 MiB of memory.
    private func monitor(_ site: AttachedSite) throws -> AttachedProgram {
        let guest = Workspace.fixture("../../Sources/Guests/KVMGuestCode/guest.S")
        return AttachedProgram(command: [try site.workspace.compile("vmm", guest)], options: ["8"])
    }

    private func expectCompleted(_ report: Printed, pages: Double) throws {
        #expect(try report.value("result") == "completed")
        #expect(try report.value("runs_on") == "destination")
        #expect(try report.number("verify", "pages_checked") == pages)
        #expect(try report.number("verify", "corrupt") == 0)
    }

    /// Checks that a guest completes further passes over its memory.
    private func expectPasses(_ program: Running) throws {
        for _ in 1...2 { try program.nextNumber(after: "pass") }
        #expect(program.errorText == "")
    }

    @Test(
        "as a virtual machine moves live, and its guest finds its memory right",
        .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
    )
    func movesMachine() throws {
        let site = try AttachedSite()
        defer { site.end() }
        let monitor = try monitor(site)
        // The push takes two seconds, so that the guest runs before its memory has arrived.
        let source = try site.source(monitor, "--max-bandwidth", "4MiB")
        let destination = try site.destination("b", monitor)
        try expectPasses(source.program)
        let report = try site.move(from: source.agent, to: destination.agent)
        try expectCompleted(report, pages: AttachedSourceTests.guestPages)
        #expect(try report.number("pages", "demand") > 0)
        #expect(try source.program.finish().status == 0)
        try expectPasses(destination.program)
        let left = try #require(source.program.numbers(after: "pass").last)
        let arrived = try #require(destination.program.numbers(after: "pass").first)
        #expect(arrived > left)
        #expect(destination.program.outputText.contains("complete\n"))
    }

    @Test(
        "as a virtual machine is taken back if its state does not load, and moves with the next attempt",
        .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
    )
    func takesMachineBack() throws {
        let site = try AttachedSite()
        defer { site.end() }
        let monitor = try monitor(site)
        let (source, destination) = (try site.source(monitor), try site.destination("b", monitor.with("broken")))
        try source.program.nextNumber(after: "pass")
        let refused = try Executable.migrate(source.agent, destination.agent, "--json")
        #expect(refused.status == 1, "\(refused)")
        let report = try Printed(refused.output)
        #expect(try report.value("runs_on") == "source")
        let error: String = try report.value("error")
        #expect(error.contains("cannot load its devices: the local APIC is broken"), "\(error)")
        #expect(source.program.outputText.contains("stopped\nresumed\n"))
        try expectPasses(source.program)
        let check = try Printed(try source.agent.qmp("pageferry-verify"))
        #expect(try check.number("return", "corrupt") == 0)
        #expect(try destination.program.finish().errors.contains("attach again with new memory"))

        _ = try site.attach(monitor, .waits, to: destination.agent)
        let moved = try site.move(from: source.agent, to: destination.agent)
        try expectCompleted(moved, pages: AttachedSourceTests.guestPages)
    }

    @Test(
        "as a virtual machine survives a link that is cut",
        .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
    )
    func survivesCutLink() throws {
        let site = try AttachedSite(rate: "10mbit")
        defer { site.end() }
        let monitor = try monitor(site)
        // The source does not recover the migration by itself.
        let source = try site.source(monitor, "--recover-for", "0s")
        let destination = try site.destination("b", monitor)
        try source.program.nextNumber(after: "pass")
        let begun = try Executable.migrate(source.agent, destination.agent, "--detach")
        #expect(begun.status == 0, "\(begun)")
        try site.wait(destination.agent, for: "postcopy-active")
        try site.hosts.cutLink()
        for side in [source, destination] { try site.wait(side.agent, for: "postcopy-paused") }
        try site.hosts.mendLink()
        let sockets = ["--source", source.agent.socket, "--destination", destination.agent.socket]
        let uri = "tcp:\(TwoHosts.destinationAddress):0"
        let recovered = try Executable.run(Executable.pageferry, ["recover"] + sockets + ["--uri", uri])
        #expect(recovered.status == 0, "\(recovered)")
        for side in [source, destination] { try site.wait(side.agent, for: "completed") }
        #expect(try source.program.finish().status == 0)
        try expectPasses(destination.program)
        let check = try Printed(try destination.agent.qmp("pageferry-verify"))
        #expect(try check.number("return", "pages_checked") == AttachedSourceTests.guestPages)
        #expect(try check.number("return", "corrupt") == 0)
    }

    @Test(
        "as a virtual machine moves on to a third agent, and back to the first",
        .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
    )
    func movesMachineOn() throws {
        let site = try AttachedSite()
        defer { site.end() }
        let monitor = try monitor(site)
        let first = try site.source(monitor)
        let second = try site.destination("b", monitor)
        let third = try site.destination("c", monitor, on: site.hosts.source)
        try expectCompleted(
            try site.move(from: first.agent, to: second.agent),
            pages: AttachedSourceTests.guestPages
        )
        try expectPasses(second.program)
        try expectCompleted(
            try site.move(from: second.agent, to: third.agent),
            pages: AttachedSourceTests.guestPages
        )
        try expectPasses(third.program)
        let last = try site.attach(monitor, .waits, to: first.agent)
        let uri = "tcp:\(TwoHosts.sourceAddress):7001"
        try expectCompleted(
            try site.move(from: third.agent, to: first.agent, uri: uri),
            pages: AttachedSourceTests.guestPages
        )
        try expectPasses(last)
        for side in [first, second, third] { #expect(try side.program.finish().status == 0) }
    }

    @Test(
        "as a virtual machine that was stopped moves stopped, also after it was taken back",
        .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
    )
    func movesStopped() throws {
        let site = try AttachedSite()
        defer { site.end() }
        let monitor = try monitor(site)
        let (source, destination) = (try site.source(monitor), try site.destination("b", monitor.with("broken")))
        try source.program.nextNumber(after: "pass")
        _ = try source.agent.qmp("stop")
        let stopped = source.program.numbers(after: "pass").last
        let refused = try Executable.migrate(source.agent, destination.agent, "--json")
        #expect(refused.status == 1, "\(refused)")
        #expect(try Printed(refused.output).value("runs_on") == "nobody")

        let second = try site.attach(monitor, .waits, to: destination.agent)
        let report = try site.move(from: source.agent, to: destination.agent)
        #expect(try report.value("result") == "completed")
        #expect(try report.value("runs_on") == "nobody")
        #expect(try report.number("verify", "pages_checked") == AttachedSourceTests.guestPages)
        #expect(try report.number("verify", "corrupt") == 0)
        #expect(source.program.numbers(after: "pass").last == stopped)
        #expect(!source.program.outputText.contains("resumed"))
        let uri = "tcp:\(TwoHosts.sourceAddress):7001"
        let early = try Executable.migrate(destination.agent, source.agent, "--uri", uri)
        #expect(early.status != 0)
        #expect(early.errors.contains("run pageferry cont unix:\(destination.agent.socket) first"), "\(early)")
        #expect(second.numbers(after: "pass").isEmpty)
        let begun = try Executable.run(Executable.pageferry, ["cont", destination.agent.socket])
        #expect(begun.status == 0, "\(begun)")
        try expectPasses(second)
    }

    @Test("as a store moves under load, every record is found, and a transaction that was open at the stop is gone")
    func movesStore() throws {
        let site = try AttachedSite()
        defer { site.end() }
        let library = ["-l:liblmdb.a", "-Wl,--wrap=mmap,--wrap=munmap"]
        let store = AttachedProgram(command: [try site.workspace.compile("store", library[0], library[1])])
        let source = try site.source(store, "--max-bandwidth", "16MiB")
        let destination = try site.destination("b", store)
        try source.program.nextNumber(after: "committed")

        // A transaction that is open while the store is stopped continues if the store resumes where it is.
        let check = try Printed(try source.agent.qmp("pageferry-verify"))
        #expect(try check.number("return", "corrupt") == 0)
        #expect(source.program.outputText.contains("stopped with an open transaction"))
        try source.program.nextNumber(after: "committed")

        let report = try site.move(from: source.agent, to: destination.agent)
        #expect(try report.value("result") == "completed")
        #expect(try report.number("verify", "pages_checked") > 2000)
        #expect(try report.number("verify", "corrupt") == 0)
        #expect(try report.number("pages", "demand") > 0)
        #expect(destination.program.numbers(after: "records found") == [20000])
        let open = source.program.numbers(after: "stopped with an open transaction, batch").last
        #expect(destination.program.numbers(after: "runs, the open transaction is gone, batch") == [open])
        try destination.program.nextNumber(after: "committed")
        #expect(try source.program.finish().status == 0)
    }

    @Test("as a dictionary in Python moves to another host and back, and finds every value")
    func movesDictionary() throws {
        let site = try AttachedSite()
        defer { site.end() }
        let dictionary = AttachedProgram(command: ["python3", "-B", Workspace.fixture("dictionary.py")])
        let (source, destination) = (try site.source(dictionary), try site.destination("b", dictionary))
        try source.program.nextNumber(after: "put")
        try expectCompleted(try site.move(from: source.agent, to: destination.agent), pages: 1024)
        try destination.program.nextNumber(after: "put")
        // The first program waits for the dictionary again, in new memory.
        _ = try source.program.output(holding: "a second attachment") { $0.matches(of: /attached/).count == 2 }
        let uri = "tcp:\(TwoHosts.sourceAddress):7001"
        try expectCompleted(try site.move(from: destination.agent, to: source.agent, uri: uri), pages: 1024)
        try source.program.nextNumber(after: "put")
        for side in [source, destination] { #expect(side.program.errorText == "") }
    }
}
