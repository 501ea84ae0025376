import Firecracker
import FirecrackerRig
import Foundation

/// Two hosts, each with a Firecracker; the source's Firecracker runs a guest.
final class MoveSite: Sendable {
    let hosts: TwoHosts
    let workspace: Workspace
    let here: MicroVM
    let there: MicroVM
    let source: AgentProcess
    let destination: AgentProcess

    /// Makes the hosts, and an agent on each.
    ///
    /// - Parameters:
    ///   - rate: the rate of the link, in tc's notation.
    ///   - prefix: the program and arguments by which each Firecracker is started.
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

    /// Moves the guest, and waits until the migration has ended.
    func migrate(_ options: String...) throws -> Finished {
        try Executable.run(
            Executable.pageferry,
            ["migrate", "--json", "--source", source.socket, "--destination", destination.socket] + options
        )
    }

    /// Begins to move the guest.
    func begin() throws {
        let begun = try Executable.migrate(source, destination, "--detach")
        guard begun.status == 0 else { throw TestFailure("\(begun)") }
    }

    /// Connects the agents without beginning the switchover.
    func link() throws {
        let uri = "tcp:\(TwoHosts.destinationAddress):7000"
        _ = try source.qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"\(uri)\"}}")
        try wait(source, for: "active")
    }

    /// Starts another agent and Firecracker, at which a guest can arrive.
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

    /// Begins to move the guest into a stopped Firecracker, and returns when Firecracker has been asked to load.
    func beginWithoutLoad() throws {
        try link()
        kill(there.guest.pid, SIGSTOP)
        _ = try source.qmp("migrate-start-postcopy")
        try wait(source, for: "postcopy-device")
    }

    /// Waits until an agent reports a state of the migration.
    func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    /// Waits until the guest has completed one more pass over its memory on a side.
    ///
    /// - Returns: the generation that the guest found.
    @discardableResult
    func pass(_ side: MicroVM) throws -> UInt64 {
        try side.guest.wait(for: "pass")
    }

    /// Checks that the guest completes further passes over its memory on a side.
    func expectGoingOn(_ side: MicroVM) throws {
        side.guest.forgetMarks()
        let generation = try pass(side)
        for count in 1...2 {
            guard try pass(side) == generation + UInt64(count) else { throw TestFailure("a pass is missing") }
        }
    }

    /// The processes whose command lines hold all of these words.
    func processes(_ words: String...) -> [Int32] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return all.compactMap { Int32($0) }.filter { pid in
            let data = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") ?? Data()
            let line = String(decoding: data, as: UTF8.self)
            return words.allSatisfy { line.contains($0) }
        }
    }

    /// Waits until a side's microVM has a keeper for the case that the agent exits.
    ///
    /// - Returns: the keeper's arguments.
    func waitForKeeper(of side: MicroVM) throws -> [String] {
        let deadline = Date(timeIntervalSinceNow: 30)
        while Date() < deadline {
            guard let keeper = processes("microvm-keeper", side.api.socketPath).first else { continue }
            let line = FileManager.default.contents(atPath: "/proc/\(keeper)/cmdline") ?? Data()
            return line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        }
        throw TestFailure("the microVM has no keeper")
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

    /// Waits until a file exists.
    func waitForFile(_ path: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while !FileManager.default.fileExists(atPath: path) {
            guard Date() < deadline else { throw TestFailure("there is no \(path)") }
        }
    }

    /// Waits until no process has these words in its command line.
    func waitForEnd(ofProcesses words: String...) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while !(words.count == 1 ? processes(words[0]) : processes(words[0], words[1])).isEmpty {
            guard Date() < deadline else { throw TestFailure("a process with \(words) still runs") }
        }
    }

    /// Waits until a Firecracker's microVM is in a state.
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
