import LinuxSystem
import PageProtocol
import Testing

@testable import FaultHandler

@Suite("The state of a guest's session")
struct SessionMemoryTests {
    private static let task = """
        {"process": 1, "socket": "unix:/s", "keepsSocketOpen": false, "hasConnection": true,
         "regions": [{"address": 4096, "pageSize": 4096, "pageCount": 2, "offset": 0}],
         "settings": {"source": "127.0.0.1:1", "giveUpSeconds": 1, "onLost": "hold", "peerTimeoutSeconds": 1,
                      "faultThreads": 1, "recordMilliseconds": 0}}
        """

    private func makeTask() throws -> GuestTask { try GuestTask(reading: Array(Self.task.utf8)) }

    private func makeFile(of task: GuestTask) throws -> MemoryFile {
        try MemoryFile(name: "session", byteCount: SessionMemory.byteCount(for: task))
    }

    private static let longest = SnapshotIdentity(
        byteCount: .max,
        proof: .unknown(kind: .max, value: (0..<240).map { UInt8($0) })
    )

    @Test("keeps the latest identity of the snapshot for the next worker")
    func identity() throws {
        let task = try makeTask()
        let file = try makeFile(of: task)
        #expect(try SessionMemory(file, of: task).snapshot == nil)
        for snapshot in [GuestWorld.own, Self.longest, GuestWorld.renewed, GuestWorld.other] {
            try SessionMemory(file, of: task).remember(snapshot)
            #expect(try SessionMemory(file, of: task).snapshot == snapshot)
            #expect(try SessionMemory(file, of: task).record.snapshot == snapshot)
        }
    }

    @Test("matches no snapshot if the identity in it cannot be read")
    func unreadable() throws {
        let task = try makeTask()
        let file = try makeFile(of: task)
        let memory = try SessionMemory(file, of: task)
        memory.remember(GuestWorld.own)
        // Longer than any identity.
        let shared = try Mapping(sharing: file)
        shared.base.storeBytes(of: 60_000, toByteOffset: 512, as: UInt16.self)
        let snapshot = try #require(memory.snapshot)
        for other in [GuestWorld.own, GuestWorld.other, Self.longest] { #expect(snapshot.matches(other) != .same) }
    }

    @Test("keeps the earlier identity if a worker dies before the later one is complete")
    func halfWritten() throws {
        let task = try makeTask()
        let file = try makeFile(of: task)
        let memory = try SessionMemory(file, of: task)
        memory.remember(GuestWorld.own)
        let shared = try Mapping(sharing: file)
        // The place of the next identity.
        shared.base.storeBytes(of: 7, toByteOffset: 768, as: UInt16.self)
        #expect(memory.snapshot == GuestWorld.own)
        memory.remember(GuestWorld.renewed)
        shared.base.storeBytes(of: 7, toByteOffset: 512, as: UInt16.self)
        #expect(memory.snapshot == GuestWorld.renewed)
    }
}
