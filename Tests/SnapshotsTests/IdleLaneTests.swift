import Foundation
import LinuxSystem
import LogLines
import OwnThread
import PageProtocol
import SnapshotClient
import Snapshots
import Testing

/// Lanes on which no request has come for so long that no thread waits for any one of them.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct IdleLaneTests {
    private static let slice = SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 100)

    private struct Joined {
        let client: SnapshotClient
        let urgent: SharedSocket
        let bulk: SharedSocket
    }

    private func makeFile() throws -> SparseFile {
        let file = try SparseFile(byteCount: 100 * 4096)
        try file.write(pages: 0..<100)
        try file.finishWriting()
        return file
    }

    private func join(_ serving: Serving) throws -> Joined {
        let client = try SnapshotClient(to: serving.address)
        try client.take([Self.slice])
        let joined = Joined(client: client, urgent: try client.join(.urgent), bulk: try client.join(.bulk))
        for lane in [joined.urgent, joined.bulk] { try expectPage(lane, 1) }
        return joined
    }

    private func expectPage(_ lane: SharedSocket, _ page: Int) throws {
        let answer = try lane.stream.ask(PageRun(region: 0, count: 1, first: UInt64(page)))
        #expect(answer.bytes == SparseFile.content(ofPage: page))
    }

    /// Waits until no serving thread waits for bytes of one lane, in `recvfrom`, whose number is 45.
    private func waitUntilIdle() throws {
        let deadline = MonotonicClock.now() + 20_000_000_000
        while try Self.someServerWaitsToReceive() {
            guard MonotonicClock.now() < deadline else { throw ServerSays(reason: "a thread still waits for a lane") }
            usleep(1000)
        }
    }

    private static func countServers() throws -> Int {
        try RunningThread.all().count { $0.name == "urgent-serve" || $0.name == "bulk-serve" }
    }

    private static func someServerWaitsToReceive() throws -> Bool {
        try RunningThread.all().contains { thread in
            guard thread.name == "urgent-serve" || thread.name == "bulk-serve" else { return false }
            // A thread that has exited meanwhile has no file.
            let call = try? String(contentsOfFile: "/proc/self/task/\(thread.id)/syscall", encoding: .utf8)
            return call?.hasPrefix("45 ") == true
        }
    }

    @Test func `idle lanes are served again, and a request may come in two parts`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let joined = try join(serving)
            try waitUntilIdle()
            for lane in [joined.urgent, joined.bulk] { try expectPage(lane, 2) }
            try waitUntilIdle()
            var request = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
            request.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                LaneFrame.pageRequest(PageRun(region: 0, count: 1, first: 42)).encode(into: base)
            }
            for cut in [1, request.count - 1] {
                try joined.urgent.stream.send(Array(request[..<cut]))
                try waitUntilIdle()
                // The rest comes with another request behind it.
                try joined.urgent.stream.send(Array(request[cut...]) + request)
                for _ in 0..<2 {
                    #expect(try joined.urgent.stream.receiveFrame()?.run.first == 42)
                    var body = [UInt8](repeating: 0, count: 4096)
                    #expect(try body.withUnsafeMutableBytes { try joined.urgent.stream.receive(exactly: $0) } == 4096)
                    #expect(body == SparseFile.content(ofPage: 42))
                }
            }
        }
    }

    @Test(arguments: [Lane.urgent, .bulk])
    func `a client that shuts an idle lane gets the reason, and no other is affected`(lane: Lane) async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let (other, joined) = (try join(serving), try join(serving))
            try waitUntilIdle()
            (lane == .urgent ? joined.urgent : joined.bulk).stream.shutdown()
            #expect(joined.client.untilHangUp()?.contains("the \(lane) lane broke: ") == true)
            for lane in [other.urgent, other.bulk] { try expectPage(lane, 3) }
        }
    }

    @Test func `a session with idle lanes ends when its client says so or hangs up`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let (polite, rude) = (try join(serving), try join(serving))
            try waitUntilIdle()
            try polite.client.say(.bye)
            #expect(polite.client.untilHangUp() == nil)
            rude.client.control.shutdown()
            for lane in [polite.urgent, polite.bulk, rude.urgent, rude.bulk] {
                #expect(try lane.stream.receiveFrame() == nil)
            }
            #expect(serving.log.first(containing: "is served \(file.path) no longer", beyond: 1) != nil)
        }
    }

    @Test func `a server whose lanes are idle ends, and says so`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let joined = try join(serving)
            try waitUntilIdle()
            serving.server.end()
            #expect(joined.client.untilHangUp() == "the server of \(file.path) is shutting down")
            #expect(try joined.urgent.stream.receiveFrame() == nil)
        }
    }

    @Test func `a file that changes while lanes are idle is not sent`() async throws {
        let file = try SparseFile(byteCount: 100 * 4096)
        try file.write(pages: 0..<100)
        let ended = try await Serving.of(file.path) { serving in
            let joined = try join(serving)
            try waitUntilIdle()
            try file.write(pages: [50])
            try joined.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 1, first: 50)))
            #expect(try joined.urgent.stream.receiveFrame() == nil)
            #expect(joined.client.untilHangUp()?.contains("was modified") == true)
        }
        #expect(ended != nil)
    }

    @Test func `a client whose requests come in pieces keeps no thread and delays no one`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            var slow: [Joined] = []
            for _ in 0..<30 {
                let joined = try join(serving)
                for lane in [joined.urgent, joined.bulk] { try lane.stream.send([3, 0, 0]) }
                // Half a frame on the control connection, whose header says that much more follows.
                try joined.client.control.send([0, 0, 1, 0])
                slow.append(joined)
            }
            let deadline = MonotonicClock.now() + 20_000_000_000
            while try Self.countServers() > 10, MonotonicClock.now() < deadline { usleep(1000) }
            #expect(try Self.countServers() <= 10)
            let joined = try join(serving)
            for page in 0..<100 { try expectPage(joined.urgent, page) }
            withExtendedLifetime(slow) {}
        }
    }
}
