public import Firecracker
import Foundation

/// A Firecracker of a test's own, with its guest. It ends with the object.
public final class MicroVM: Sendable {
    /// Its process: the guest's marks and commands.
    public let guest: GuestProcess
    /// Its API.
    public let api: FirecrackerAPI

    /// Starts a Firecracker that has no microVM yet.
    ///
    /// - Parameters:
    ///   - folder: a folder of the test's own, whose path has 90 bytes at most: for its API socket.
    ///   - prefix: a program that becomes Firecracker, and its arguments before Firecracker's own.
    public init(in folder: String, startedBy prefix: [String] = []) throws {
        let name = "api-\(UInt32.random(in: 0...UInt32.max)).sock"
        api = FirecrackerAPI(socketPath: "\(folder)/\(name)", timeout: .seconds(30))
        let command =
            prefix + [try FirecrackerProgram.found.get()]
            + ["--api-sock", api.socketPath, "--log-path", "/dev/stderr", "--level", "Info"]
        guest = try GuestProcess(command[0], Array(command.dropFirst()))
        let deadline = Date(timeIntervalSinceNow: 30)
        while !(try guest.log.line(before: deadline).contains("API server started")) {}
    }

    /// Boots the guest and returns when it has filled its memory; it then runs.
    ///
    /// - Parameters:
    ///   - balloon: whether it has the balloon that ``GuestProcess/Command/inflate`` needs.
    ///   - folder: where the guest is built.
    public func boot(_ machine: Machine, balloon: Bool = false, in folder: String) throws {
        let kernel = try Tool.build(
            "firecracker-guest.S",
            into: folder,
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,-N,--no-warn-rwx-segments,-Ttext=0x100000,--build-id=none"
        )
        try api.setBootSource(kernel: kernel)
        try api.setMachine(machine)
        if balloon { try api.setBalloon() }
        try api.start()
        try guest.wait(for: "filled")
    }

    /// Pauses the guest and makes a snapshot in a folder.
    public func snapshot(in folder: String) throws -> GuestSnapshot {
        let snapshot = GuestSnapshot(
            memory: "\(folder)/memory",
            state: "\(folder)/state",
            machine: try api.machine()
        )
        try api.pause()
        try api.createSnapshot(state: snapshot.state, memory: snapshot.memory)
        return snapshot
    }

    /// Makes the guest of a snapshot.
    public func restore(_ snapshot: GuestSnapshot, from memory: SnapshotMemory, resume: Bool = true) throws {
        try api.loadSnapshot(state: snapshot.state, memory: memory, resume: resume)
    }

    /// Ends Firecracker at once.
    public func end() {
        guest.end()
    }
}

/// A guest in two files.
public struct GuestSnapshot: Sendable {
    /// The file of its memory.
    public let memory: String
    /// The file of its devices and processors; none for the stand-in.
    public let state: String
    /// What it ran on.
    public let machine: Machine
}
