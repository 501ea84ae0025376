package import Firecracker
import Foundation

/// A Firecracker process of one test, with its guest.
///
/// The process ends with the object.
package final class MicroVM: Sendable {
    /// The process, with the guest's marks and commands.
    package let guest: GuestProcess
    /// The Firecracker's API.
    package let api: FirecrackerAPI

    /// Starts a Firecracker that has no microVM yet.
    ///
    /// - Parameters:
    ///   - folder: a folder of the test's own for the API socket, whose path has at most 90 bytes.
    ///   - prefix: a program that executes Firecracker, with its arguments before Firecracker's own.
    package init(in folder: String, startedBy prefix: [String] = []) throws {
        let name = "api-\(UInt32.random(in: 0...UInt32.max)).sock"
        api = FirecrackerAPI(socketPath: "\(folder)/\(name)", timeout: .seconds(30))
        let command =
            prefix + [try FirecrackerProgram.found.get()]
            + ["--api-sock", api.socketPath, "--log-path", "/dev/stderr", "--level", "Info"]
        guest = try GuestProcess(command[0], Array(command.dropFirst()))
        let deadline = Date(timeIntervalSinceNow: 30)
        while !(try guest.log.line(before: deadline).contains("API server started")) {}
    }

    /// Boots the guest and returns when the guest runs and has filled its memory.
    ///
    /// - Parameters:
    ///   - balloon: whether the guest has the balloon that ``GuestProcess/Command/inflate`` needs.
    ///   - folder: where the guest is built.
    package func boot(_ machine: Machine, balloon: Bool = false, in folder: String) throws {
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
    package func snapshot(in folder: String) throws -> GuestSnapshot {
        let snapshot = GuestSnapshot(
            memory: "\(folder)/memory",
            state: "\(folder)/state",
            machine: try api.machine()
        )
        try api.pause()
        try api.createSnapshot(state: snapshot.state, memory: snapshot.memory)
        return snapshot
    }

    /// Restores the guest of a snapshot.
    package func restore(_ snapshot: GuestSnapshot, from memory: MemoryBackend, resume: Bool = true) throws {
        try api.loadSnapshot(state: snapshot.state, memory: memory, resume: resume)
    }

    /// Kills Firecracker.
    package func end() {
        guest.end()
    }
}

/// A guest's snapshot in two files.
package struct GuestSnapshot: Sendable {
    /// The file of the guest's memory.
    package let memory: String
    /// The file of the guest's devices and processors; the stand-in has none.
    package let state: String
    /// The machine on which the guest ran.
    package let machine: Machine
}
