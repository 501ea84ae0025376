import FirecrackerRig
import Foundation
import Glibc
import Testing

/// Restored guests whose server, handler and workers are killed at random moments.
///
/// The guests touch their memory in a dispersed order, and drop pages of it meanwhile. PAGEFERRY_KILLS gives the number
/// of kills, PAGEFERRY_KILLS_SEED the seed.
@Suite("Torture of restored guests")
struct GuestKillTests {
    private static let guestCount = 20
    private static let killsOfRound = 5

    private enum Victim: CaseIterable {
        case worker, template, handler, handlerAndWorkers, server
    }

    @Test("no page is wrong, and no guest waits for ever", .timeLimit(.minutes(60)))
    func kills() throws {
        let environment = ProcessInfo.processInfo.environment
        let wanted = environment["PAGEFERRY_KILLS"].flatMap { Int($0) } ?? 30
        let seed = environment["PAGEFERRY_KILLS_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 32)
        print("torture of guests: \(wanted) kills with seed \(seed)")
        var random = SplitMix64(state: seed)
        let site = try RestoreSite(.standIn, memoryMiB: 32)
        defer { site.end() }
        var (kills, slowest) = (0, 0.0)
        while kills < wanted {
            let guests = try (0..<GuestKillTests.guestCount).map { _ in try site.restore() }
            for guest in guests {
                // A handler that dies before it has a guest's record knows nothing of that guest.
                _ = try site.worker(of: guest)
                for command in [.dispersed, .inflateBesideFaults, .pass] as [GuestProcess.Command] {
                    guest.send(command)
                }
            }
            for _ in 0..<min(GuestKillTests.killsOfRound, wanted - kills) {
                usleep(.random(in: 0..<20_000, using: &random))
                try kill(GuestKillTests.victim(using: &random), at: site, guests, &random)
                kills += 1
            }
            let begin = Date()
            for guest in guests { #expect(try guest.wait(for: "pass", seconds: 60) == 1) }
            slowest = max(slowest, -begin.timeIntervalSinceNow)
            for guest in guests {
                #expect(try guest.perform(.pass) == 2)
                guest.end()
            }
        }
        print("torture of guests: \(kills) kills; the longest time from the last kill to whole memory was \(slowest) s")
    }

    private static func victim(using random: inout SplitMix64) -> Victim {
        Victim.allCases.randomElement(using: &random) ?? .worker
    }

    private func kill(
        _ victim: Victim,
        at site: RestoreSite,
        _ guests: [GuestProcess],
        _ random: inout SplitMix64
    ) throws {
        switch victim {
        case .worker:
            if let guest = guests.randomElement(using: &random) { killAll(named: "pageferry-guest-\(guest.pid)") }
        case .template:
            // Between two workers, a handler may have none.
            if let template = try RestoreSite.template(of: site.handler) { Glibc.kill(template, SIGKILL) }
        case .handler, .handlerAndWorkers:
            site.killHandler()
            if victim == .handlerAndWorkers {
                for guest in guests { killAll(named: "pageferry-guest-\(guest.pid)") }
            }
            usleep(.random(in: 0..<20_000, using: &random))
            try site.startNextHandler()
        case .server:
            site.killServer()
            usleep(.random(in: 0..<20_000, using: &random))
            try site.startServer()
        }
    }

    /// Kills the processes of this name.
    private func killAll(named name: String) {
        for process in ProcessFiles.processes(named: name) { Glibc.kill(process, SIGKILL) }
    }
}
