import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Testing

@testable import Controller

/// Device states that are sent before the stop.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct StatesAheadTests {
    @Test(arguments: [false, true])
    func `a state that is sent ahead of the stop arrives as it is at the stop`(older: Bool) async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), older: older)
        defer { ferrying.end() }
        let early = [UInt8](repeating: 3, count: 3 << 20)
        ferrying.workload.disk.goAhead(with: early)
        var late = early
        late[77] = 4
        late += [1, 2, 3]
        ferrying.workload.disk.set(state: late)
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.landing.workload?.disk.savedState == late)
        #expect(ferrying.landing.workload?.clock.savedState == ferrying.workload.clock.savedState)
        let ahead = ferrying.journal.index(of: "source save ahead disk")
        // The source sends nothing ahead to a destination of an earlier release.
        #expect((ahead == nil) == older)
        if let ahead { #expect(ahead < ferrying.journal.index(of: "source stop") ?? 0) }
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `a device whose state cannot be sent ahead is still saved after the stop`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.disk.goAhead(with: nil)
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.landing.workload?.disk.savedState == [7, 7, 7])
        try await ferrying.source.wait(forLine: "cannot send device states before the stop: device ")
    }

    /// Violations of the protocol by a source that sends states ahead.
    enum Fault: CaseIterable, Sendable {
        case early, late, overlong, unfinished, badPatch, tooMany

        var reason: String {
            switch self {
            case .early: "before REGIONS"
            case .late: "out of order"
            case .overlong: "more device state than it announced"
            case .unfinished: "LISTEN before all of the device state it announced"
            case .badPatch: "a patch that does not fit"
            case .tooMany: "more device state ahead than the protocol carries"
            }
        }

        /// The frames that the source sends after READY.
        var frames: [ControlMessage] {
            let announced = ControlMessage.devicesAhead([DeviceEntry(name: "disk", byteCount: 4)])
            let state = ControlMessage.deviceData([1, 2, 3, 4])
            return switch self {
            case .early: []
            case .late: [.listen, announced]
            case .overlong: [announced, .deviceData([1, 2, 3, 4, 5])]
            case .unfinished: [announced, .deviceData([1]), .listen]
            case .badPatch:
                [
                    announced, state, .listen, .devices([DeviceEntry(name: "disk", byteCount: 4)]),
                    .deviceData([9, 9, 9, 99]),
                ]
            case .tooMany:
                (0..<65).flatMap { [.devicesAhead([DeviceEntry(name: "\($0)", byteCount: 1)]), .deviceData([1])] }
            }
        }
    }

    @Test(arguments: Fault.allCases)
    func `states ahead that break the protocol close the connection with the reason`(fault: Fault) async throws {
        let destination = Host(landing: TestLanding(journal: Journal()))
        let address = try await destination.agent.listen(
            at: .tcp(host: "127.0.0.1", port: 0),
            exitsOnError: false,
            waitsOn: true
        )
        let source = try RawSource(to: address)
        try source.sendHello()
        let nonce = try #require(await source.nonce())
        guard fault != .early else {
            try source.send(.devicesAhead([]))
            return #expect(await source.untilHangUp()?.contains(fault.reason) == true)
        }
        try source.sendRegions()
        let urgent = try RawSource.join(.urgent, source.migration, nonce, at: address)
        let bulk = try RawSource.join(.bulk, source.migration, nonce, at: address)
        let answering = try JoinedThread(name: "probes") { BadInputTests.answerProbes(urgent) }
        #expect(try await source.next() == .ready)
        // The destination hangs up at the first wrong frame.
        for frame in fault.frames { try? source.send(frame) }
        let told = await source.untilHangUp()
        #expect(told?.contains(fault.reason) == true, "\(told ?? "nothing")")
        try await destination.wait(for: "failed")
        urgent.socket.shutdown()
        answering.join()
        withExtendedLifetime(bulk) {}
    }
}
