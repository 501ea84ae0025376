import FirecrackerRig
import Foundation
import LinuxSystem
import Testing

/// A snapshot, its server, and handlers that serve restored guests: one that the site starts, or those that a test
/// starts with options of its own.
final class RestoreSite {
    static let memoryBytes = 16 << 20
    let workspace: Workspace
    let snapshot: GuestSnapshot
    let address: String
    private(set) var server: Running?
    private let kind: GuestKind
    private let hosts: TwoHosts?
    /// The options of the site's own handlers.
    private let options: [String]
    private var ownHandler: Running?
    private var running: [Running] = []
    private var guests: [GuestProcess] = []

    /// Starts a server.
    ///
    /// - Parameters:
    ///   - kind: the kind of the guest.
    ///   - serving: more options of the server.
    convenience init(serverOf kind: GuestKind, serving: [String] = []) throws {
        try self.init(kind, between: nil, memoryMiB: RestoreSite.memoryBytes >> 20, serving: serving, handling: [])
    }

    /// Starts a server and a handler.
    ///
    /// - Parameters:
    ///   - kind: the kind of the guests.
    ///   - hosts: the hosts of the server and of the handler; nil for this host.
    ///   - memoryMiB: the memory of a guest.
    ///   - options: more options of the handler.
    convenience init(_ kind: GuestKind, between hosts: TwoHosts? = nil, memoryMiB: Int = 16, _ options: String...)
        throws
    {
        try self.init(kind, between: hosts, memoryMiB: memoryMiB, serving: [], handling: options)
        do {
            try startNextHandler()
        } catch {
            end()
            throw error
        }
    }

    private init(
        _ kind: GuestKind,
        between hosts: TwoHosts?,
        memoryMiB: Int,
        serving: [String],
        handling options: [String]
    ) throws {
        self.kind = kind
        self.hosts = hosts
        self.options = options
        workspace = try Workspace()
        snapshot = try kind.snapshot(memoryMiB: memoryMiB, in: workspace.path)
        let listen = hosts == nil ? ["127.0.0.1:0"] : ["\(TwoHosts.sourceAddress):7200", "--insecure"]
        let server = try RestoreSite.start(
            between: hosts,
            on: hosts?.source,
            ["serve", "--snapshot", snapshot.memory, "--listen"] + listen + serving
        )
        self.server = server
        do {
            // With --http, the line goes on after a comma.
            let line = try server.line(holding: "ready").prefix { $0 != "," }
            address = String(line.dropFirst("ready tcp:".count))
        } catch {
            server.end()
            throw error
        }
    }

    private static func start(between hosts: TwoHosts?, on host: String?, _ arguments: [String]) throws -> Running {
        guard let hosts, let host else { return try Running(Executable.pageferry, arguments) }
        return try hosts.run(on: host, Executable.pageferry, arguments)
    }

    // MARK: The site's own handler

    /// The handler that the site has started last.
    var handler: Running {
        guard let ownHandler else { preconditionFailure("this site was made without a handler") }
        return ownHandler
    }

    /// The socket of the site's own handlers.
    var socket: String { workspace.file("uffd.sock") }

    /// The folder in which the site's own handlers keep their guests' state.
    var state: String { workspace.file("handler") }

    /// Starts the next handler, at the socket of the first.
    func startNextHandler(_ more: String...) throws {
        let started = try RestoreSite.start(
            between: hosts,
            on: hosts?.destination,
            arguments(["--socket", socket, "--state", state] + options + more)
        )
        ownHandler = started
        _ = try ready(started)
    }

    /// Kills the handler, without its workers.
    func killHandler() {
        kill(handler.pid, SIGKILL)
        _ = try? handler.finish()
    }

    /// Limits the numbers of the descriptors that the handler can open from now on.
    func limitHandler(toDescriptors descriptors: Int) throws {
        let set = try Executable.run("/usr/bin/prlimit", ["--pid", "\(handler.pid)", "--nofile=\(descriptors):1024"])
        #expect(set.status == 0, "\(set)")
    }

    /// The process id of the worker that was started as number `number`.
    func worker(_ number: Int) throws -> Int32 {
        let line = try handler.errorLine(holding: " serves process ", number: number)
        guard let pid = line.split(separator: " ").compactMap({ Int32($0) }).first else { throw TestFailure(line) }
        return pid
    }

    /// The process id of a guest's worker, once there is one.
    ///
    /// The log does not name each of many workers: repeated lines are only counted.
    func worker(of guest: GuestProcess) throws -> Int32 {
        let deadline = Date(timeIntervalSinceNow: 30)
        while true {
            if let worker = ProcessFiles.processes(named: "pageferry-guest-\(guest.pid)").first { return worker }
            try #require(Date() < deadline)
        }
    }

    // MARK: Other handlers

    /// The arguments of a handler.
    func arguments(_ options: [String]) -> [String] {
        ["attach", "--from", address, "--log-level", "info"] + options
    }

    /// Starts a handler, and waits until it is ready.
    ///
    /// - Parameter prefix: a program that executes the handler, with its arguments.
    func attach(_ options: String..., by prefix: [String] = []) throws -> Running {
        let command = prefix + [Executable.pageferry] + arguments(options)
        return try ready(try run(command[0], Array(command.dropFirst())))
    }

    func ready(_ handler: Running) throws -> Running {
        _ = try handler.line(holding: "ready")
        return handler
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
        _ = try ready(running)
        return Handler(running: running, socket: socket)
    }

    struct Handler {
        let running: Running
        let socket: String

        func end() { running.end() }
    }

    /// Runs a program until the site ends.
    func run(_ path: String, _ arguments: [String]) throws -> Running {
        let program = try Running(path, arguments)
        running.append(program)
        return program
    }

    /// Runs a program of Python from the fixtures.
    func python(_ fixture: String, _ arguments: String...) throws -> Running { try python(fixture, arguments) }

    /// Runs a program of Python from the fixtures.
    func python(_ fixture: String, _ arguments: [String]) throws -> Running {
        try run("/usr/bin/python3", ["-B", Workspace.fixture(fixture)] + arguments)
    }

    // MARK: Workers

    /// The processes that a handler has as its workers.
    func workers(of handler: Running) throws -> [Int32] {
        try RestoreSite.children(of: handler).filter { !RestoreSite.isTemplate($0) }
    }

    /// The process of which a handler's workers are copies; nil before the first worker.
    static func template(of handler: Running) throws -> Int32? { try children(of: handler).first(where: isTemplate) }

    private static func isTemplate(_ process: Int32) -> Bool {
        // A worker may have ended.
        let command = (try? ProcessFiles.text("/proc/\(process)/cmdline")) ?? ""
        return command.hasPrefix("pageferry-worker-template")
    }

    private static func children(of handler: Running) throws -> [Int32] {
        let tasks = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(handler.pid)/task")
        return tasks.flatMap { task in
            // A thread may have ended meanwhile; its children then belong to another.
            let text = (try? ProcessFiles.text("/proc/\(handler.pid)/task/\(task)/children")) ?? ""
            return text.split(separator: " ").compactMap { Int32($0) }
        }
    }

    // MARK: Guests

    func restore() throws -> GuestProcess { try restore(at: socket) }

    /// Restores a guest by the handler at a socket.
    func restore(at socket: String) throws -> GuestProcess {
        keep(try kind.restore(snapshot, with: socket, in: workspace.path))
    }

    func keep(_ guest: GuestProcess) -> GuestProcess {
        guests.append(guest)
        return guest
    }

    // MARK: The server

    /// Kills the server.
    func killServer() {
        guard let server else { return }
        kill(server.pid, SIGKILL)
        _ = try? server.finish()
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
        for program in running { program.end() }
        ownHandler?.end()
        endServer()
    }
}
