import Foundation
import Identity
import LinuxSystem
import LogLines
import OwnThread
import PageProtocol
import SnapshotClient
import Snapshots
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct HostileClientTests {
    private static let slice = SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 100)

    private func makeFile() throws -> SparseFile {
        let file = try SparseFile(byteCount: 100 * 4096 + 100)
        try file.write(pages: 0..<100)
        return file
    }

    /// Checks that an honest client is served.
    private func expectServed(_ serving: Serving) throws {
        let client = try SnapshotClient(to: serving.address)
        try client.take([Self.slice])
        let urgent = try client.join(.urgent)
        let answer = try urgent.stream.ask(PageRun(region: 0, count: 1, first: 42))
        #expect(answer.bytes == SparseFile.content(ofPage: 42))
    }

    /// The frame of SLICES, encoded without checks.
    private func slices(_ slices: [SnapshotSlice]) -> [UInt8] {
        func bytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
            (0..<Number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
        }
        let header = bytes(UInt32(2 + 20 * slices.count)) + bytes(FrameKind.slices.rawValue) + bytes(UInt16(0))
        return slices.reduce(into: header + bytes(UInt16(slices.count))) {
            $0 += bytes($1.offset) + bytes($1.pageSize) + bytes($1.pageCount)
        }
    }

    @Test(arguments: [
        (
            [SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 101)],
            "has 409700 bytes, and the guest's regions end at 413696"
        ),
        (
            [SnapshotSlice(offset: 0, pageSize: 2 << 20, pageCount: 1)],
            "has 409700 bytes, and the guest's regions end at 2097152"
        ),
        (
            [slice, SnapshotSlice(offset: 1 << 40, pageSize: 4096, pageCount: 1)],
            "the guest's regions end at 1099511631872"
        ),
        ([slice, SnapshotSlice(offset: 4096, pageSize: 4096, pageCount: 1)], "slices 0 and 1 share bytes of the file"),
        ([SnapshotSlice(offset: 0, pageSize: 3, pageCount: 1)], "page size of slice 0 is 3"),
        ([SnapshotSlice(offset: 1, pageSize: 4096, pageCount: 1)], "offset of slice 0 is 1"),
        ([SnapshotSlice(offset: .max - 4095, pageSize: 4096, pageCount: 2)], "offset of slice 0"),
        ([SnapshotSlice(offset: 4096, pageSize: 4096, pageCount: 1 << 52)], "page count of slice 0"),
        ([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 0)], "page count of slice 0 is 0"),
        ([], "SLICES: payload of 2 bytes"),
    ])
    func `slices that do not lie in the file are refused with the reason`(
        slices: [SnapshotSlice],
        words: String
    ) async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.control.send(self.slices(slices))
            guard case .refused(let reason) = try client.next() else {
                Issue.record("\(words): not refused")
                return
            }
            #expect(reason.contains(words))
            #expect(try client.next() == nil)
            try expectServed(serving)
        }
    }

    @Test func `a client that connects while the server exits may try again`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            serving.server.end()
            #expect(try client.next() == .failure(reason: "the server of \(file.path) is shutting down"))
        }
    }

    @Test func `a HELLO that does not come from a destination is refused`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            var source = SnapshotClient.hello()
            source.role = .source
            var leased = SnapshotClient.hello()
            leased.lease = .files(epoch: 1, store: "/srv", workload: "vm")
            let words = [(source, "which takes no guest"), (leased, "without a run lease")]
            for (hello, words) in words {
                let error = #expect(throws: ServerSays.self) { try SnapshotClient(to: serving.address, as: hello) }
                #expect(error?.reason.contains(words) == true)
            }
            let first = SnapshotClient.hello()
            let client = try SnapshotClient(to: serving.address, as: first)
            #expect(throws: ServerSays(reason: "a session with that id already exists")) {
                try SnapshotClient(to: serving.address, as: first)
            }
            try client.take([Self.slice])
        }
    }

    @Test func `a destination of an older release is refused with one line on both sides`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            var older = SnapshotClient.hello()
            older.capabilities = .startResult
            let words = "the destination's release cannot tell one snapshot from another by its proof"
            let error = #expect(throws: ServerSays.self) { try SnapshotClient(to: serving.address, as: older) }
            #expect(error?.reason == "\(words); run the same pageferry release on both hosts")
            #expect(serving.log.first(containing: words)?.contains("refused a connection from 127.0.0.1") == true)
            #expect(serving.log.all.count == 1)
            try expectServed(serving)
        }
    }

    @Test func `a lane joins once, with the session's nonce, and only after SNAPSHOT`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address, urgentLanes: 2)
            func expectRefused(_ lane: Lane, index: Int = 0, nonce: Nonce? = nil) throws {
                let socket = try client.join(lane, index: index, nonce: nonce)
                var header = [UInt8](repeating: 0, count: 8)
                let count = try header.withUnsafeMutableBytes { try socket.stream.receive(exactly: $0) }
                #expect(count == 8 && header[4] == UInt8(FrameKind.refused.rawValue))
            }
            try expectRefused(.urgent)
            try client.take([Self.slice])
            try expectRefused(.urgent, nonce: .random())
            try expectRefused(.urgent, index: 2)
            let urgent = try client.join(.urgent, index: 1)
            #expect(try urgent.stream.ask(PageRun(region: 0, count: 1, first: 1)).zeroPages == 0)
            try expectRefused(.urgent, index: 1)
            #expect(try urgent.stream.ask(PageRun(region: 0, count: 1, first: 2)).zeroPages == 0)
        }
    }

    @Test(arguments: [
        PageRun(region: 0, count: 1, first: 100), PageRun(region: 0, count: 101, first: 0),
        PageRun(region: 1, count: 1, first: 0), PageRun(region: 0, count: 0, first: 0),
        PageRun(region: 0, count: .max, first: .max),
    ])
    func `a request for pages outside the slices ends only its session`(run: PageRun) async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take([Self.slice])
            let (urgent, bulk) = (try client.join(.urgent), try client.join(.bulk))
            try bulk.stream.send(.pageRequest(run))
            #expect(try bulk.stream.receiveFrame() == nil)
            #expect(client.untilHangUp()?.contains("the bulk lane broke: ") == true)
            #expect(try urgent.stream.receiveFrame() == nil)
            try expectServed(serving)
        }
    }

    @Test func `garbage ends only its connection`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            for bytes in [Array("GET / HTTP/1.1\r\n\r\n".utf8), [0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0], []] {
                let socket = try StreamSocket(connectingTo: serving.address)
                try socket.send(bytes)
                if !bytes.isEmpty { try expectHangUp(socket) }
            }
            let client = try SnapshotClient(to: serving.address)
            try client.take([Self.slice])
            let urgent = try client.join(.urgent)
            try urgent.stream.send((0..<999).map { UInt8(truncatingIfNeeded: $0 &* 83 &+ 17) })
            #expect(client.untilHangUp()?.contains("the urgent lane broke: ") == true)
            let wordy = try SnapshotClient(to: serving.address)
            try wordy.say(
                .regions(
                    guest: GuestAnnouncement(
                        kind: "x",
                        configuration: [],
                        regions: [
                            RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 1)
                        ]
                    )
                )
            )
            #expect(wordy.untilHangUp()?.contains("sent REGIONS") == true)
            try expectServed(serving)
        }
    }

    private func expectHangUp(_ socket: borrowing StreamSocket) throws {
        try socket.setReceiveTimeout(seconds: 30)
        var byte: [UInt8] = [0]
        // Bytes that the server has not read may reset the connection.
        while byte.withUnsafeMutableBytes({ (try? socket.receive(into: $0)) ?? 0 }) > 0 {}
    }

    @Test func `a silent connection is dropped, and so is a client that becomes silent`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path, peerTimeout: .seconds(3)) { serving in
            let mute = try StreamSocket(connectingTo: serving.address)
            let silent = try SnapshotClient(to: serving.address)
            try silent.take([Self.slice])
            let (urgent, bulk) = (try silent.join(.urgent), try silent.join(.bulk))
            #expect(silent.untilHangUp()?.contains("has been silent for") == true)
            // A lane that joins late, after the session was dropped, is refused before the server hangs up.
            for lane in [urgent, bulk] { try expectHangUp(lane.stream) }
            try expectServed(serving)
            try expectHangUp(mute)
        }
    }

    @Test func `a client that sends requests and never reads blocks no one else`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let greedy = try SnapshotClient(to: serving.address)
            try greedy.take([Self.slice])
            let (urgent, bulk) = (try greedy.join(.urgent), try greedy.join(.bulk))
            let asking = ThreadGroup()
            for lane in [urgent, bulk] {
                try asking.run("ask") {
                    let run = PageRun(region: 0, count: 100, first: 0)
                    while (try? lane.stream.send(.pageRequest(run))) != nil {}
                }
            }
            for _ in 0..<5 { try expectServed(serving) }
            try greedy.say(.bye)
            #expect(greedy.untilHangUp() == nil)
            for lane in [urgent, bulk] { lane.stream.shutdown() }
            asking.join()
        }
    }

    @Test func `clients beyond the bound get the reason, and earlier clients are served`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path, connectionLimit: 512) { serving in
            let served = try SnapshotClient(to: serving.address)
            try served.take([Self.slice])
            let urgent = try served.join(.urgent)
            var others: [SnapshotClient] = []
            var refusals = 0
            for _ in 0..<60 {
                do {
                    others.append(try SnapshotClient(to: serving.address, urgentLanes: 16))
                } catch let error as ServerSays {
                    #expect(error.reason == "all 512 connections are in use; try again later")
                    refusals += 1
                }
            }
            // There are 512 connections: 3, and 18 for each of the others.
            #expect(others.count == 28)
            #expect(refusals == 32)
            #expect(try urgent.stream.ask(PageRun(region: 0, count: 1, first: 1)).zeroPages == 0)
            let last = others.removeLast()
            try last.say(.bye)
            #expect(last.untilHangUp() == nil)
            // The place is free once the server has noticed the client's end.
            while (try? SnapshotClient(to: serving.address, urgentLanes: 16)) == nil {}
        }
    }

    @Test func `clients without requests keep no other out, and clients with requests stay`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path, peerTimeout: .seconds(10), connectionLimit: 512) { serving in
            let served = try SnapshotClient(to: serving.address)
            try served.take([Self.slice])
            let lanes = [try served.join(.urgent), try served.join(.bulk)]
            // 28 clients have 18 connections each, and the served client has 3. The next 18 are too many.
            var idle: [(client: SnapshotClient, lanes: [SharedSocket])] = []
            for _ in 0..<28 {
                let client = try SnapshotClient(to: serving.address, urgentLanes: 16)
                try client.take([Self.slice])
                var lanes = [try client.join(.bulk)]
                for index in 0..<16 { lanes.append(try client.join(.urgent, index: index)) }
                // Some clients request one page once, which must not keep their places for good.
                if idle.count % 2 == 0 { _ = try lanes[1].stream.ask(PageRun(region: 0, count: 1, first: 3)) }
                idle.append((client, lanes))
            }
            var page: UInt64 = 0
            var late: SnapshotClient?
            while late == nil {
                // Send PING for every client, so that none is dropped because it is silent. A client that has made room
                // is closed already.
                for client in [served] + idle.map(\.client) { try? client.say(.ping(0)) }
                // This is the interval between two tries.
                usleep(100_000)
                page = (page + 1) % 100
                _ = try lanes[0].stream.ask(PageRun(region: 0, count: 1, first: page))
                do {
                    late = try SnapshotClient(to: serving.address, urgentLanes: 16)
                } catch let error as ServerSays {
                    #expect(error.reason.contains("connections are in use"))
                }
            }
            #expect(try late?.take([Self.slice]) != nil)
            #expect(try lanes[0].stream.ask(PageRun(region: 0, count: 1, first: 1)).zeroPages == 0)
            #expect(
                serving.log.first(containing: "all connections are in use, and this session is idle; reconnect later")
                    != nil
            )
            withExtendedLifetime(idle) {}
        }
    }

    @Test func `clients that come and go leave no descriptor and no thread behind`() async {
        // Run in a process of its own, where no other test opens a descriptor.
        await #expect(processExitsWith: .success) {
            let file = try SparseFile(byteCount: 100 * 4096)
            try await Serving.of(file.path) { serving in
                try Self.comeAndGo(serving)
                let before = try Self.openFilesAndThreads()
                for _ in 0..<20 { try Self.comeAndGo(serving) }
                let deadline = MonotonicClock.now() + 10_000_000_000
                while zip(try Self.openFilesAndThreads(), before).contains(where: { $0 > $1 + 3 }) {
                    guard MonotonicClock.now() < deadline else { throw ServerSays(reason: "files or threads are left") }
                    usleep(1000)
                }
            }
        }
    }

    static func comeAndGo(_ serving: Serving) throws {
        for goes in 0..<3 {
            let client = try SnapshotClient(to: serving.address)
            try client.take([slice])
            let lanes = [try client.join(.urgent), try client.join(.bulk)]
            _ = try lanes[0].stream.ask(PageRun(region: 0, count: 1, first: 1))
            switch goes {
            case 0: try client.say(.bye)
            case 1: client.control.shutdown()
            default: lanes[1].stream.shutdown()
            }
            _ = client.untilHangUp()
        }
    }

    static func openFilesAndThreads() throws -> [Int] {
        try ["/proc/self/fd", "/proc/self/task"].map { try FileManager.default.contentsOfDirectory(atPath: $0).count }
    }
}
