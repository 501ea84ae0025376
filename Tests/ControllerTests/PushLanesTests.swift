import Connections
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Testing

@testable import Controller

/// How many connections a push has, and what either side may say about them.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct PushLanesTests {
    private func lanes(_ source: Host) async throws -> Int64? {
        try await source.command("pageferry-report")["source"]?["pushLanes"]?.integer
    }

    private func expectMoved(_ ferrying: Ferrying, over lanes: Int64) async throws {
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(try await self.lanes(ferrying.source) == lanes)
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `without a wish, a link with a short round trip has one`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        #expect(try await ferrying.source.command("query-migrate-parameters")["multifd-channels"] == 0)
        try await ferrying.migrate()
        try await expectMoved(ferrying, over: 1)
    }

    @Test(arguments: [1, 2, 4, 64])
    func `a workload moves over as many as are wished for`(lanes: Int) async throws {
        let ferrying = try await Ferrying(pushLanes: lanes, faultThreads: 2)
        defer { ferrying.end() }
        #expect(try await ferrying.source.command("query-migrate-parameters")["multifd-channels"] == JSONValue(lanes))
        try await ferrying.migrate()
        try await expectMoved(ferrying, over: Int64(lanes))
    }

    @Test func `a client sets the number for later migrations, and sets it back`() async throws {
        let ferrying = try await Ferrying(pushLanes: 2)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["multifd-channels": 0])
        try await ferrying.source.command("migrate-set-parameters", ["multifd-channels": 3])
        try await ferrying.migrate()
        try await expectMoved(ferrying, over: 3)
    }

    @Test func `a destination that takes fewer gets fewer, and the source says so`() async throws {
        // The relay lets the destination appear as an earlier release, which knows of one lane.
        let ferrying = try await Ferrying(older: true, pushLanes: 4)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(forLine: "the push uses 1 connection of 4: the destination takes no more")
        #expect(try await soon { try await lanes(ferrying.source) == 1 })
    }

    @Test func `a link that breaks is replaced by one with as many, and no page is lost`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushLanes: 4)
        defer { ferrying.end() }
        // Each lane sends one page and then none for an hour.
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 1])
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        for breaks in 1...3 {
            ferrying.relay.cutAll()
            #expect(
                try await soon {
                    ferrying.source.passed.filter { $0 == "postcopy-recover" }.count >= breaks
                        && ferrying.source.passed.last == "postcopy-active"
                }
            )
        }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await expectMoved(ferrying, over: 4)
    }

    @Test func `one lane of several that breaks ends the link with its reason, and the next link brings the rest`()
        async throws
    {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushLanes: 4)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 1])
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(untilRunning: true)
        ferrying.relay.cut(.bulk)
        // The side that notices the break first tells the other.
        #expect(
            try await soon {
                ferrying.destination.lines(containing: "the bulk lane broke")
                    + ferrying.source.lines(containing: "the bulk lane broke") > 0
            }
        )
        #expect(try await soon { ferrying.source.passed.suffix(2) == ["postcopy-recover", "postcopy-active"] })
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await expectMoved(ferrying, over: 4)
    }

    @Test func `a source with more lanes than its pages allow is refused and harms nobody`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let raw = try RawSource(to: ferrying.address)
        try raw.sendHello(bulkLanes: 64)
        _ = try #require(try await raw.nonce())
        let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4 << 20, pageCount: 1)
        try raw.send(.regions(guest: GuestAnnouncement(kind: "test", configuration: [], regions: [shape])))
        #expect(
            try await raw.next()
                == .refused(reason: "pages of 4194304 bytes take at most 32 connections of the push, not 64")
        )
        try await ferrying.migrate()
        try await expectMoved(ferrying, over: 1)
    }

    @Test func `a JOIN of a lane that was not agreed, or that has joined, is refused and harms nobody`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let raw = try RawSource(to: ferrying.address)
        try raw.sendHello(bulkLanes: 3)
        let nonce = try #require(try await raw.nonce())
        try raw.sendRegions()
        let urgent = try RawSource.join(.urgent, raw.migration, nonce, at: ferrying.address)
        var bulks: [Held] = []
        for index in 0..<2 {
            bulks.append(try RawSource.join(.bulk, index: index, raw.migration, nonce, at: ferrying.address))
        }
        for index in [1, 3, 63] {
            let stranger = try RawSource.join(.bulk, index: index, raw.migration, nonce, at: ferrying.address)
            let answer = try await onThread("answer") { try ControlLane.receive(from: stranger.socket) }
            #expect(
                answer == .refused(reason: "no migration of that id and nonce waits for its bulk lane \(index)")
            )
        }
        let beyond = try RawSource.join(.bulk, index: 64, raw.migration, nonce, at: ferrying.address)
        let answer = try await onThread("answer") { try ControlLane.receive(from: beyond.socket) }
        #expect(answer == .refused(reason: "JOIN: lane index is 64, allowed 0...63"))
        // The migration itself still waits for its last lane, and gets it.
        bulks.append(try RawSource.join(.bulk, index: 2, raw.migration, nonce, at: ferrying.address))
        let answering = try JoinedThread(name: "probes") { BadInputTests.answerProbes(urgent) }
        #expect(try await raw.next() == .ready)
        urgent.socket.shutdown()
        answering.join()
        withExtendedLifetime(bulks) {}
    }

    @Test func `a HELLO with a number out of bounds is refused, and the next source is served`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let raw = try RawSource(to: ferrying.address)
        var hello = try ControlMessage.hello(
            Hello(
                role: .source,
                capabilities: .startResult,
                migration: raw.migration,
                instance: .random(),
                nonce: .zero,
                lease: .absent
            )
        ).encode()
        hello[8 + 15] = 64
        try raw.socket.send(hello)
        #expect(
            try await raw.next() == .refused(reason: "HELLO: bulk lanes beyond the first is 64, allowed 0...63")
        )
        try await ferrying.migrate()
        try await expectMoved(ferrying, over: 1)
    }

    @Test(arguments: [
        (nil, 1), (0, 1), (1, 1), (3999, 1), (4000, 2), (7999, 2), (8000, 3), (40_000, 4), (10_000_000, 4),
    ])
    func `the usual number grows with the round trip`(microseconds: Int?, lanes: Int) {
        #expect(PushLanes.usual(roundTrip: microseconds.map { .microseconds($0) }) == lanes)
    }

    @Test(arguments: [(4096, 32_768), (2 << 20, 64), (1 << 30, 1), (0, 128 << 20)])
    func `huge pages bound the number`(pageSize: Int, lanes: Int) {
        #expect(PushLanes.most(ofPagesWithBytes: pageSize) == lanes)
    }
}
