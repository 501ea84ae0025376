import FirecrackerRig
import Foundation
import LinuxSystem
import Testing

/// A snapshot, its server, and the handler that serves restored guests.
final class RestoreSite {
    let workspace: Workspace
    let socket: String
    private(set) var handler: Running
    private let options: [String]
    private let kind: GuestKind
    private let hosts: TwoHosts?
    let snapshot: GuestSnapshot
    let address: String
    private(set) var server: Running?
    private var guests: [GuestProcess] = []

    init(_ kind: GuestKind, between hosts: TwoHosts? = nil, memoryMiB: Int = 16, _ options: String...) throws {
        self.kind = kind
        self.hosts = hosts
        self.options = options
        workspace = try Workspace()
        socket = workspace.file("uffd.sock")
        snapshot = try kind.snapshot(memoryMiB: memoryMiB, in: workspace.path)
        let listen = hosts == nil ? ["127.0.0.1:0"] : ["\(TwoHosts.sourceAddress):7200", "--insecure"]
        let server = try RestoreSite.start(
            between: hosts,
            on: hosts?.source,
            ["serve", "--snapshot", snapshot.memory, "--listen"] + listen
        )
        do {
            address = String(try server.line(holding: "ready").dropFirst("ready tcp:".count))
            handler = try RestoreSite.start(
                between: hosts,
                on: hosts?.destination,
                RestoreSite.attach(socket, address, workspace) + options
            )
            _ = try handler.line(holding: "ready")
        } catch {
            server.end()
            throw error
        }
        self.server = server
    }

    private static func start(between hosts: TwoHosts?, on host: String?, _ arguments: [String]) throws -> Running {
        guard let hosts, let host else { return try Running(Executable.pageferry, arguments) }
        return try hosts.run(on: host, Executable.pageferry, arguments)
    }

    /// The folder in which the handlers keep their guests' state.
    var state: String { workspace.file("handler") }

    private static func attach(_ socket: String, _ address: String, _ workspace: Workspace) -> [String] {
        [
            "attach", "--socket", socket, "--from", address, "--state", workspace.file("handler"), "--log-level",
            "info",
        ]
    }

    /// Kills the handler, without its workers.
    func killHandler() {
        kill(handler.pid, SIGKILL)
        _ = try? handler.finish()
    }

    /// Kills the server.
    func killServer() {
        guard let server else { return }
        kill(server.pid, SIGKILL)
        _ = try? server.finish()
    }

    /// Starts the next handler, at the socket of the first.
    func startNextHandler(_ more: String...) throws {
        handler = try RestoreSite.start(
            between: hosts,
            on: hosts?.destination,
            RestoreSite.attach(socket, address, workspace) + options + more
        )
        _ = try handler.line(holding: "ready")
    }

    /// The process id of the worker that was started as number `number`.
    func worker(_ number: Int) throws -> Int32 {
        let line = try handler.errorLine(holding: " serves process ", number: number)
        guard let pid = line.split(separator: " ").compactMap({ Int32($0) }).first else { throw TestFailure(line) }
        return pid
    }

    func restore() throws -> GuestProcess { try restore(at: socket) }

    func restore(at socket: String) throws -> GuestProcess {
        let guest = try kind.restore(snapshot, with: socket, in: workspace.path)
        guests.append(guest)
        return guest
    }

    /// Starts another handler.
    func startHandler(_ options: [String], from server: String? = nil) throws -> Handler {
        let socket = workspace.file("uffd-\(UInt16.random(in: 0...UInt16.max)).sock")
        let running = try Running(
            Executable.pageferry,
            [
                "attach", "--socket", socket, "--from", server ?? address, "--state",
                workspace.file("state-\(UInt32.random(in: 0...UInt32.max))"),
            ] + options
        )
        _ = try running.line(holding: "ready")
        return Handler(running: running, socket: socket)
    }

    struct Handler {
        let running: Running
        let socket: String

        func end() { running.end() }
    }

    /// Limits the numbers of the descriptors that the handler can open from now on.
    func limitHandler(toDescriptors descriptors: Int) throws {
        let set = try Executable.run("/usr/bin/prlimit", ["--pid", "\(handler.pid)", "--nofile=\(descriptors):1024"])
        #expect(set.status == 0, "\(set)")
    }

    func endServer() {
        server?.end()
        server = nil
    }

    /// Restarts the server at its address, with its own file or another.
    func startServer(_ file: String? = nil, _ options: [String] = []) throws {
        server = try Running(
            Executable.pageferry,
            ["serve", "--snapshot", file ?? snapshot.memory, "--listen", address] + options
        )
        _ = try server?.line(holding: "ready")
    }

    /// Ends all processes, including the guests.
    func end() {
        for guest in guests { guest.end() }
        handler.end()
        endServer()
    }
}
