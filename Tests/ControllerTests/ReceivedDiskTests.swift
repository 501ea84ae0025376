import Connections
import Foundation
import Guest
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Testing
import Workloads

@testable import Controller

/// Lies of a source whose device states arrive: about the disk of its workload, and about its memory.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ReceivedDiskTests {
    private let folder = NSTemporaryDirectory() + "pf-disk-\(UInt32.random(in: 0...UInt32.max))"

    /// A source that has sent a disk's state with a number of acquisitions, at a destination whose start fails.
    private func source(
        acquisitions: UInt64,
        at address: SocketAddress
    ) async throws -> (raw: RawSource, lanes: AnsweringLanes, answer: ControlMessage?) {
        let path = "\(folder)/image"
        try Data(count: 4096).write(to: URL(fileURLWithPath: path))
        let workload = try BuiltInWorkload(
            new: WorkloadConfiguration(
                memoryBytes: 1 << 20,
                devices: [.disk(path: path), .broken(at: .start)]
            )
        )
        let saved = try workload.devices.save().map { device in
            guard device.name == "disk" else { return device }
            let count = withUnsafeBytes(of: acquisitions.littleEndian, Array.init)
            return DeviceSet.Saved(name: device.name, state: count + device.state.dropFirst(count.count))
        }
        #expect(saved.contains { $0.name == "disk" })
        let raw = try RawSource(to: address)
        try raw.sendHello()
        let nonce = try #require(try await raw.nonce())
        try raw.send(.regions(guest: GuestAnnouncement(workload.description)))
        let urgent = try RawSource.join(.urgent, raw.migration, nonce, at: address)
        let bulk = try RawSource.join(.bulk, raw.migration, nonce, at: address)
        let lanes = try AnsweringLanes(urgent, bulk)
        #expect(try await raw.next() == .ready)
        try raw.send(.listen)
        for frame in try DeviceTransfer.frames(of: saved) { try raw.socket.send(frame) }
        try raw.send(.ping(7))
        return (raw, lanes, try await raw.next())
    }

    private func withDestination(_ body: (Host, SocketAddress) async throws -> Void) async throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let host = Host(landing: BuiltInLanding(allowingDisksIn: [try AllowedFolder(folder)]))
        let address = try await host.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        try await body(host, address)
    }

    @Test func `a disk with the highest valid number of acquisitions is acquired again by each RUN`() async throws {
        try await withDestination { host, address in
            let (raw, lanes, answer) = try await source(acquisitions: 1 << 62 - 1, at: address)
            #expect(answer == .pong(7))
            for token in (1...5).map({ RunToken($0) }) {
                // Send each RUN twice: the second gets the outcome of the first as its answer.
                for _ in 0..<2 {
                    try raw.send(.run(token: token, epoch: 0))
                    guard case .startFailed(token, let reason) = try await raw.next() else {
                        Issue.record("RUN \(token) is not answered with START_FAILED")
                        return
                    }
                    #expect(reason.contains("broken"))
                }
                // The start was undone, so the lock is free.
                _ = try FileLock("\(folder)/image")
            }
            #expect(try await host.command("query-status")["running"] == false)
            withExtendedLifetime(lanes) {}
        }
    }

    @Test func `REGIONS over a link that rejoins ends that link, and the next one is as the first`() async throws {
        try await withDestination { _, address in
            let (first, lanes, answer) = try await source(acquisitions: 1, at: address)
            #expect(answer == .pong(7))
            var received: [ControlMessage?] = []
            for attempt in 0..<2 {
                let raw = try RawSource(to: address, rejoining: first)
                try raw.sendHello()
                #expect(try await raw.nonce() != nil)
                received.append(try await raw.next())
                guard attempt == 0 else { break }
                try raw.sendRegions(pageCount: 1)
                #expect(await raw.untilHangUp() == "the source sent REGIONS twice")
            }
            guard case .received(let pages)? = received.last else {
                Issue.record("the pages that have arrived are not listed: \(received)")
                return
            }
            #expect(received.first == received.last && !pages.bits.isEmpty)
            withExtendedLifetime(lanes) {}
        }
    }

    @Test func `a disk with a number of acquisitions beyond the bound is refused`() async throws {
        try await withDestination { host, address in
            let (_, lanes, answer) = try await source(acquisitions: .max - 1, at: address)
            guard case .devicesFailed(let device, let reason) = answer else {
                Issue.record("the disk is taken: \(String(describing: answer))")
                return
            }
            #expect(device == "disk" && reason.contains("\(UInt64.max - 1)"))
            #expect(try await host.command("query-status")["running"] == false)
            withExtendedLifetime(lanes) {}
        }
    }

    /// The lanes of a source that answers probes on the urgent lane, and sends no page.
    private final class AnsweringLanes: Sendable {
        private let lanes: [Held]
        private let threads = ThreadGroup()

        init(_ urgent: Held, _ bulk: Held) throws {
            lanes = [urgent, bulk]
            try threads.run("probes") {
                var frame = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
                var reply = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount + Int(Wire.probeReplyBytes))
                reply.withUnsafeMutableBytes {
                    if let base = $0.baseAddress { LaneFrame.probeReply.encode(into: base) }
                }
                while (try? frame.withUnsafeMutableBytes { try urgent.socket.receive(exactly: $0) }) == frame.count {
                    guard (try? urgent.socket.send(reply)) != nil else { return }
                }
            }
        }

        deinit {
            for lane in lanes { lane.socket.shutdown() }
            threads.join()
        }
    }
}
