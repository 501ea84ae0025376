import Firecracker
import Foundation

/// The root folder of a jailed process, which belongs to another user.
///
/// The folder has what a restored guest needs, and is removed with the object.
package final class Jail: Sendable {
    /// The user and the group that the jailed process runs as.
    package static let user: UInt32 = 1234
    /// Where the handler's socket is, as the jailed process sees it.
    package static let socketInside = "/run/uffd.sock"

    /// The jail's root folder.
    package let root: String

    /// Whether this process can make a jail.
    package static var isPossible: Bool { geteuid() == 0 && access("/usr/bin/unshare", X_OK) == 0 }

    /// Makes a jail as the jailer of Firecracker makes one.
    ///
    /// - Parameters:
    ///   - id: the microVM's identifier, at most 64 characters.
    ///   - folder: a folder of the test's own.
    package init(_ id: String, in folder: String) throws {
        root = "\(folder)/jailer/firecracker/\(id)/root"
        let files = FileManager.default
        for part in ["", "/run", "/dev"] {
            try files.createDirectory(atPath: root + part, withIntermediateDirectories: true)
            guard chown(root + part, Jail.user, Jail.user) == 0 else { throw RigFailure("cannot chown \(root + part)") }
        }
        _ = try Tool.run("/bin/cp", ["-a", "/dev/userfaultfd", "\(root)/dev/userfaultfd"])
        guard chown("\(root)/dev/userfaultfd", Jail.user, Jail.user) == 0 else { throw RigFailure("cannot chown") }
    }

    /// Where the handler's socket is, as this process sees it.
    package var socket: String { root + Jail.socketInside }

    /// Restores an idle guest of the stand-in as another user, in the jail and in a PID namespace of its own.
    package func restore(_ regions: [Int]) throws -> GuestProcess {
        _ = try Tool.build("firecracker-stand-in.c", into: root, "-O2", "-pthread", "-static")
        let identity = ["--setuid", "\(Jail.user)", "--setgid", "\(Jail.user)"]
        return try GuestProcess(
            "/usr/bin/unshare",
            ["--fork", "--pid", "--kill-child", "--root", root] + identity + ["/firecracker-stand-in.c.program"]
                + [Jail.socketInside, "4096"] + regions.map(String.init)
        )
    }

    /// The jailer of Firecracker, or one line that says why it cannot be run here.
    package static let jailer: Result<String, RigFailure> = {
        guard isPossible, FirecrackerProgram.isHere else {
            return .failure(RigFailure("a jail needs root and Firecracker"))
        }
        do throws(RigFailure) {
            return .success(try Tool.run(RigFiles.script("firecracker"), ["jailer"]))
        } catch {
            return .failure(error)
        }
    }()

    /// Starts Firecracker in its jail, and restores a guest.
    ///
    /// - Parameters:
    ///   - snapshot: a snapshot that a Firecracker has made outside of a jail.
    ///   - id: the identifier with which this jail was made.
    ///   - folder: the folder in which this jail was made; its path has at most 40 bytes.
    ///   - options: further options of the jailer.
    package func restore(
        _ snapshot: GuestSnapshot,
        _ id: String,
        in folder: String,
        _ options: [String]
    ) throws -> GuestProcess {
        let program = "\(folder)/firecracker"
        _ = try Tool.run("/bin/cp", [try FirecrackerProgram.found.get(), program])
        _ = try Tool.run("/bin/cp", [snapshot.state, "\(root)/state"])
        _ = try Tool.run("/bin/chmod", ["644", "\(root)/state"])
        // The jailer makes the devices itself.
        try FileManager.default.removeItem(atPath: "\(root)/dev")
        let user = String(Jail.user)
        let guest = try GuestProcess(
            try Jail.jailer.get(),
            ["--id", id, "--exec-file", program, "--uid", user, "--gid", user, "--chroot-base-dir", "\(folder)/jailer"]
                + options + ["--", "--api-sock", "/run/api.sock"]
        )
        let api = "\(root)/run/api.sock"
        let deadline = Date(timeIntervalSinceNow: 30)
        while access(api, F_OK) != 0 {
            guard Date() < deadline else { throw RigFailure("the jailed Firecracker has no API: \(guest.log.rest())") }
            sched_yield()
        }
        try FirecrackerAPI(socketPath: api, timeout: .seconds(30)).loadSnapshot(
            state: "/state",
            memory: .handler(socketPath: Jail.socketInside),
            resume: true
        )
        return guest
    }
}
