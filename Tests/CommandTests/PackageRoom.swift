import Foundation
import Glibc
import Testing

/// A copy of this host's files, without Swift, in which packages can be installed.
final class PackageRoom {
    private let running: Running
    /// The process whose namespaces are the room's.
    private let process: Int32
    private let namespaces: [String]

    /// Makes a room.
    ///
    /// - Parameter isBooted: whether systemd runs in the room, in namespaces of its own. If not, the room shares the
    ///   processes of this host.
    init(in site: RestoreSite, isBooted: Bool = false) throws {
        let folder = isBooted ? site.workspace.path : site.workspace.file("room")
        if !isBooted { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false) }
        let swift = try Executable.run("/bin/sh", ["-c", "readlink -f $(command -v swift)"]).output
        let toolchain = URL(fileURLWithPath: swift.trimmingCharacters(in: .whitespacesAndNewlines))
            .deletingLastPathComponent().deletingLastPathComponent().path
        // A toolchain in the system's own folders cannot be hidden.
        let hidden = ["/", "/usr", "/usr/local"].contains(toolchain) ? "/nothing" : toolchain
        let fixture = Workspace.fixture(isBooted ? "booted.sh" : "room.sh")
        running = try site.run("/usr/bin/unshare", ["-m", "/bin/sh", fixture, folder, hidden])
        let line = try running.line(holding: "ready")
        process = isBooted ? try #require(Int32(line.dropFirst("ready ".count))) : running.pid
        namespaces = isBooted ? ["-a"] : ["-m", "-r"]
        // Otherwise, packages would be installed on the host.
        let root = try run("stat", "-f", "-c", "%T", "/").output
        try #require(root.hasPrefix("overlay"), "the room is not the root of its commands: \(root)")
    }

    /// The words that run a command in the room.
    func words(_ command: [String]) -> [String] {
        ["/usr/bin/nsenter", "-t", "\(process)"] + namespaces + [
            "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
        ] + command
    }

    @discardableResult
    func run(_ command: String..., status: Int32 = 0) throws -> Finished {
        let words = words(command)
        let finished = try Executable.run(words[0], Array(words.dropFirst()))
        #expect(finished.status == status, "\(command): \(finished)")
        return finished
    }

    func has(_ path: String) throws -> Bool {
        let words = words(["test", "-e", path])
        return try Executable.run(words[0], Array(words.dropFirst())).status == 0
    }

    /// Ends what runs in the room, and waits until the room is gone.
    func end() {
        kill(running.pid, SIGTERM)
        // The site ends the room in any case.
        _ = try? running.finish()
    }
}
