import Firecracker
import FirecrackerRig
import Foundation

/// Two hosts, each with a Firecracker: that of the source has a guest which runs.
final class MoveSite: Sendable {
    let hosts: TwoHosts
    let workspace: Workspace
    let here: MicroVM
    let there: MicroVM
    let source: AgentProcess
    let destination: AgentProcess

    /// Makes them, and an agent for each.
    ///
    /// - Parameters:
    ///   - rate: what the link carries, in tc's words.
    ///   - prefix: what each Firecracker is started by: a program and its arguments.
    init(
        rate: String = "2gbit",
        memoryMiB: Int = 16,
        huge: Bool = false,
        startedBy prefix: (here: [String], there: [String]) = ([], []),
        source: [String] = [],
        destination: [String] = []
    ) throws {
        hosts = try TwoHosts(rate: rate)
        workspace = try Workspace()
        here = try MicroVM(in: workspace.path, startedBy: prefix.here)
        there = try MicroVM(in: workspace.path, startedBy: prefix.there)
        let machine = Machine(memoryMiB: memoryMiB, pages: huge ? .huge : .base)
        try here.boot(machine, balloon: !huge, in: workspace.path)
        self.source = try AgentProcess.source(
            in: workspace,
            on: (hosts, hosts.source),
            ["--guest", "firecracker:\(here.api.socketPath)", "--peer-timeout", "1s"] + source
        )
        do {
            self.destination = try AgentProcess.destination(
                in: workspace,
                on: (hosts, hosts.destination),
                [
                    "--guest", "firecracker:\(there.api.socketPath)", "--peer-timeout", "1s", "--listen",
                    "\(TwoHosts.destinationAddress):7000", "--insecure",
                ] + destination
            )
        } catch {
            self.source.end()
            throw error
        }
    }

    /// Moves the guest, and waits for the end.
    func migrate(_ options: String...) throws -> Finished {
        try Executable.run(
            Executable.pageferry,
            ["migrate", "--json", "--source", source.socket, "--destination", destination.socket] + options
        )
    }

    /// Begins to move it.
    func begin() throws {
        let begun = try Executable.migrate(source, destination, "--detach")
        guard begun.status == 0 else { throw TestFailure("\(begun)") }
    }

    /// Makes the link between the agents; nobody asks for the switchover.
    func link() throws {
        let uri = "tcp:\(TwoHosts.destinationAddress):7000"
        _ = try source.qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"\(uri)\"}}")
        try wait(source, for: "active")
    }

    /// An agent and a Firecracker beside those of the destination, into which a guest can come.
    func anotherDestination(on host: String, in workspace: Workspace) throws -> (microVM: MicroVM, agent: AgentProcess)
    {
        let microVM = try MicroVM(in: workspace.path)
        let address = host == hosts.source ? TwoHosts.sourceAddress : TwoHosts.destinationAddress
        let agent = try AgentProcess.destination(
            in: workspace,
            on: (hosts, host),
            ["--guest", "firecracker:\(microVM.api.socketPath)", "--listen", "\(address):7001", "--insecure"]
        )
        return (microVM, agent)
    }

    /// Begins to move it, into a Firecracker that stands still, and returns when that is to load the snapshot.
    func beginWithoutLoad() throws {
        try link()
        kill(there.guest.pid, SIGSTOP)
        _ = try source.qmp("migrate-start-postcopy")
        try wait(source, for: "postcopy-device")
    }

    /// Waits until the migration is in a state, as an agent says.
    func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    /// Waits until the guest has gone round its memory once more on a side.
    ///
    /// - Returns: the generation that it found.
    @discardableResult
    func pass(_ side: MicroVM) throws -> UInt64 {
        try side.guest.wait(for: "pass")
    }

    /// Sees that the guest goes round its memory on a side, from now on.
    func expectGoingOn(_ side: MicroVM) throws {
        side.guest.forgetMarks()
        let generation = try pass(side)
        for count in 1...2 {
            guard try pass(side) == generation + UInt64(count) else { throw TestFailure("a pass is missing") }
        }
    }

    /// Processes whose command line holds all of these.
    func processes(_ words: String...) -> [Int32] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return all.compactMap { Int32($0) }.filter { pid in
            let data = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") ?? Data()
            let line = String(decoding: data, as: UTF8.self)
            return words.allSatisfy { line.contains($0) }
        }
    }

    /// Waits until somebody sees to a side's microVM in case its agent ends.
    ///
    /// - Returns: its arguments.
    func waitForKeeper(of side: MicroVM) throws -> [String] {
        let deadline = Date(timeIntervalSinceNow: 30)
        while Date() < deadline {
            guard let keeper = processes("microvm-keeper", side.api.socketPath).first else { continue }
            let line = FileManager.default.contents(atPath: "/proc/\(keeper)/cmdline") ?? Data()
            return line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        }
        throw TestFailure("nobody sees to the microVM")
    }

    /// Waits until an agent has a thread of this name.
    func waitForThread(_ name: String, of agent: AgentProcess) throws {
        let tasks = "/proc/\(agent.running.pid)/task"
        let deadline = Date(timeIntervalSinceNow: 30)
        while Date() < deadline {
            for task in try FileManager.default.contentsOfDirectory(atPath: tasks)
            where FileManager.default.contents(atPath: "\(tasks)/\(task)/comm") == Data("\(name)\n".utf8) { return }
        }
        throw TestFailure("the agent has no thread \(name)")
    }

    /// Waits until there is a file.
    func waitForFile(_ path: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while !FileManager.default.fileExists(atPath: path) {
            guard Date() < deadline else { throw TestFailure("there is no \(path)") }
        }
    }

    /// Waits until there is no such process.
    func waitForEnd(ofProcesses words: String...) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while !(words.count == 1 ? processes(words[0]) : processes(words[0], words[1])).isEmpty {
            guard Date() < deadline else { throw TestFailure("\(words) is there still") }
        }
    }

    /// Waits until what a Firecracker does is this.
    func wait(_ side: MicroVM, toBe state: Instance.State) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try side.api.instance().state != state {
            guard Date() < deadline else { throw TestFailure("the microVM is \(try side.api.instance().state)") }
        }
    }

    func end() {
        source.end()
        destination.end()
        here.end()
        there.end()
    }
}
