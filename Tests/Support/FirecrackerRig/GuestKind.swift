import Firecracker
import Foundation

/// The program that plays a restored guest; a test has the same steps with each kind.
package enum GuestKind: String, Sendable, CaseIterable {
    /// Firecracker itself.
    case firecracker
    /// A process that hands its memory over as Firecracker does, for hosts that cannot run Firecracker.
    case standIn

    /// The kinds that can run on this host.
    package static var available: [GuestKind] { FirecrackerProgram.isHere ? [.firecracker, .standIn] : [.standIn] }

    /// Makes a snapshot of an idle guest, whose pages all have generation 1.
    ///
    /// - Parameter folder: a folder of the test's own, for the snapshot and the built programs.
    package func snapshot(memoryMiB: Int = 16, in folder: String) throws -> GuestSnapshot {
        switch self {
        case .firecracker:
            let microVM = try MicroVM(in: folder)
            defer { microVM.end() }
            microVM.guest.send(.stop)
            try microVM.boot(Machine(memoryMiB: memoryMiB), balloon: true, in: folder)
            try microVM.guest.wait(for: "idle")
            return try microVM.snapshot(in: folder)
        case .standIn:
            let memory = "\(folder)/memory"
            _ = try Tool.run(try StandIn.program(in: folder), ["write", memory, "\(memoryMiB << 20)"])
            return GuestSnapshot(memory: memory, state: "", machine: Machine(memoryMiB: memoryMiB))
        }
    }

    /// Restores an idle guest with a page-fault handler that listens at a socket.
    package func restore(
        _ snapshot: GuestSnapshot,
        with handlerSocket: String,
        in folder: String
    ) throws -> GuestProcess {
        switch self {
        case .firecracker:
            let microVM = try MicroVM(in: folder)
            try microVM.restore(snapshot, from: .handler(socketPath: handlerSocket))
            return microVM.guest
        case .standIn:
            return try StandIn.restore([snapshot.machine.memoryMiB << 20], with: handlerSocket, in: folder)
        }
    }
}

/// The process that stands in for a restored Firecracker.
package enum StandIn {
    /// Restores an idle guest.
    ///
    /// - Parameters:
    ///   - regions: the bytes of each region; the regions follow each other in the memory file.
    ///   - pageSize: 4096, or 2097152 for memory of hugetlbfs.
    ///   - prefix: a program that executes the stand-in, with its arguments.
    package static func restore(
        _ regions: [Int],
        pageSize: Int = 4096,
        with handlerSocket: String,
        in folder: String,
        by prefix: [String] = []
    ) throws -> GuestProcess {
        let command =
            prefix + [try program(in: folder), handlerSocket, String(pageSize)] + regions.map(String.init)
        return try GuestProcess(command[0], Array(command.dropFirst()))
    }

    /// Makes the memory file of an idle guest with these regions.
    package static func writeMemory(_ regions: [Int], to path: String, in folder: String) throws {
        _ = try Tool.run(program(in: folder), ["write", path] + regions.map(String.init))
    }

    static func program(in folder: String) throws(RigFailure) -> String {
        try Tool.build("firecracker-stand-in.c", into: folder, "-O2", "-pthread")
    }
}
