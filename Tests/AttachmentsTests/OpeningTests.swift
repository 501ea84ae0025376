import LinuxSystem
import OwnThread
import Testing

@testable import Attachments

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct OpeningTests {
    @Test func `twelve silent connections do not keep another process from attaching`() throws {
        let site = try Site()
        defer { site.end() }
        var idle: [SharedSocket] = []
        for _ in 0..<12 { idle.append(SharedSocket(try StreamSocket(connectingTo: .unix(path: site.path)))) }
        let begin = MonotonicClock.now()
        _ = try site.attach()
        #expect(MonotonicClock.now() - begin < 4_000_000_000)
        withExtendedLifetime(idle) {}
    }
}
