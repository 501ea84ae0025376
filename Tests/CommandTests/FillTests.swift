import FirecrackerRig
import Foundation
import HugePages
import LinuxSystem
import OwnThread
import Testing

/// Restored guests that get all of their pages, and need nobody then.
@Suite("A restored guest that has all of its pages", .ownThread, .timeLimit(.minutes(2)))
struct FillTests {
    private static let letGo = "needs its server and this handler no more"

    @Test("runs on without its server and its handler", arguments: GuestKind.available)
    func letGo(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64, "--fill")
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.inflate) == 256)
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        #expect(try FileManager.default.contentsOfDirectory(atPath: site.state).isEmpty)
        site.endServer()
        site.killHandler()
        #expect(try guest.perform(.pass) == 1)
        // The memory is unregistered, so that dropping pages does not wait for a reader of events.
        #expect(try guest.perform(.inflate) == 512)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("is let go too when its own touches have brought the last page, and no worker could be started")
    func byTouch() throws {
        let site = try RestoreSite(.standIn, "--give-up", "1s", "--on-lost", "kill")
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.pass) == 1)
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        try site.limitHandler(toDescriptors: 4)
        #expect(try guest.perform(.pass) == 2)
        site.killHandler()
        #expect(try guest.perform(.pass) == 3)
    }

    @Test("was filled when its operator ordered it, over a new link, and another worker went on")
    func ordered() throws {
        let site = try RestoreSite(.standIn, memoryMiB: 64)
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        _ = try guest.perform(.workingSet)
        // Words of the guest's state, as `SessionMemory` describes them.
        func order(_ bytesPerSecond: UInt64) throws {
            let name = try #require(
                try FileManager.default.contentsOfDirectory(atPath: site.state).first { $0.hasSuffix(".state") }
            )
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: site.state + "/" + name))
            try file.seek(toOffset: 12 * 8)
            try file.write(contentsOf: withUnsafeBytes(of: bytesPerSecond.littleEndian) { Data($0) })
            try file.close()
        }
        try order(8 << 20)
        _ = try site.handler.errorLine(holding: "at most 8388608 bytes in a second, as its operator has ordered")
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        try order(.max)
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        #expect(!site.handler.errorText.contains("has lost its link"))
        site.endServer()
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("was filled no faster than it may be")
    func rate() throws {
        let site = try RestoreSite(.standIn, "--fill=8MiB")
        defer { site.end() }
        let begin = MonotonicClock.now()
        let guest = try site.restore()
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        // 16 MiB, of which the first request has no predecessor.
        #expect(seconds > 1.8, "\(seconds)")
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("got its working set first")
    func workingSetFirst() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let record = site.workspace.file("set")
        let first = try site.startHandler(["--record", record, "--window", "60s"])
        defer { first.end() }
        let recorded = try site.restore(at: first.socket)
        recorded.send(.dispersed)
        _ = try recorded.perform(.workingSet)
        recorded.end()
        _ = try first.running.errorLine(holding: "recorded in")
        let second = try site.startHandler(["--prefetch", record, "--fill=8MiB"])
        defer { second.end() }
        let guest = try site.restore(at: second.socket)
        _ = try second.running.errorLine(holding: "has its working set")
        #expect(!second.running.errorText.contains(FillTests.letGo))
        _ = try second.running.errorLine(holding: FillTests.letGo)
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("got them although its worker and its server were gone for a while")
    func interrupted() throws {
        let site = try RestoreSite(.standIn, memoryMiB: 64, "--fill=32MiB")
        defer { site.end() }
        let guest = try site.restore()
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        site.endServer()
        try site.startServer()
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        #expect(try guest.perform(.pass) == 1)
    }
}
