import Firecracker
import FirecrackerRig
import OwnThread
import Testing

@Suite("A source of a microVM", .ownThread, .timeLimit(.minutes(2)), .needsFirecracker)
struct GuestSourceTests {
    @Test("whose guest has moved accepts no workload, says where one can arrive, and reports its migration")
    func takesNone() throws {
        let site = try MoveSite()
        defer { site.end() }
        let refused = try site.migrate("--verify")
        #expect(refused.status == 1 && refused.errors.contains("migrate without --verify"), "\(refused)")
        let moved = try site.migrate()
        #expect(moved.status == 0, "\(moved)")
        let answer = try site.source.qmp(
            "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:0\"}}"
        )
        #expect(answer.contains("pageferry destination --guest firecracker:"), "\(answer)")
        #expect(try site.source.qmp("query-migrate").contains("\"completed\""))
    }
    @Test("that waits after a failed start resumes the guest on cancel, after the destination's Firecracker has exited")
    func waits() throws {
        let site = try MoveSite(source: ["--on-start-failure", "wait"], destination: ["--stopped"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        site.there.end()
        let cont = try Executable.pageferry("cont", site.destination.socket)
        #expect(cont.status == 1 && cont.errors.contains("has ended"), "\(cont)")
        #expect(try site.here.api.instance().state == .paused)
        let cancelled = try Executable.pageferry("cancel", site.source.socket)
        #expect(cancelled.status == 0, "\(cancelled)")
        #expect(try site.here.api.instance().state == .running)
    }
}
