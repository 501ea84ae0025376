import FirecrackerRig
import Foundation

/// A server of a snapshot, for handlers that a test starts with options of its own.
final class AttachSite {
    static let memoryBytes = 16 << 20
    let workspace: Workspace
    let address: String
    let snapshot: GuestSnapshot
    private var server: Running
    private var running: [Running] = []
    private var guests: [GuestProcess] = []

    /// Starts a server.
    ///
    /// - Parameter options: more options of the server.
    init(_ kind: GuestKind = .standIn, serving options: [String] = []) throws {
        workspace = try Workspace()
        snapshot = try kind.snapshot(memoryMiB: AttachSite.memoryBytes >> 20, in: workspace.path)
        server = try Running(
            Executable.pageferry,
            ["serve", "--snapshot", snapshot.memory, "--listen", "127.0.0.1:0"] + options
        )
        address = String(try server.line(holding: "ready").dropFirst("ready tcp:".count))
    }

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

    /// Runs a program until the site ends.
    func run(_ path: String, _ arguments: [String]) throws -> Running {
        let program = try Running(path, arguments)
        running.append(program)
        return program
    }

    /// Restores a guest of the stand-in.
    func restore(at socket: String) throws -> GuestProcess {
        keep(try StandIn.restore([AttachSite.memoryBytes], with: socket, in: workspace.path))
    }

    func keep(_ guest: GuestProcess) -> GuestProcess {
        guests.append(guest)
        return guest
    }

    /// Runs a program of Python from the fixtures.
    func python(_ fixture: String, _ arguments: String...) throws -> Running {
        try run("/usr/bin/python3", ["-B", Workspace.fixture(fixture)] + arguments)
    }

    /// The processes that a handler has as its workers.
    func workers(of handler: Running) throws -> [Int32] {
        try AttachSite.children(of: handler).filter { !AttachSite.isTemplate($0) }
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

    func endServer() { server.end() }

    /// Restarts the server at its address, with its own file or another.
    func startServer(_ file: String? = nil) throws {
        let file = file ?? snapshot.memory
        server = try Running(Executable.pageferry, ["serve", "--snapshot", file, "--listen", address])
        _ = try server.line(holding: "ready")
    }

    /// Ends all processes.
    func end() {
        for guest in guests { guest.end() }
        for program in running { program.end() }
        server.end()
    }
}

/// Files of /proc.
enum ProcessFiles {
    static func text(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

    /// The processes whose command line begins with this name.
    static func processes(named name: String) -> [Int32] {
        // /proc can always be listed; a process may have ended since.
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { Int32($0) } ?? []
        return all.filter { (try? text("/proc/\($0)/cmdline"))?.hasPrefix("\(name)\0") == true }
    }

    /// The number of descriptors that a process has open.
    static func descriptorCount(of process: Int32) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
    }
}
