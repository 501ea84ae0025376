import FirecrackerRig
import OwnThread
import Testing

@Suite("A source whose microVM has moved", .ownThread, .timeLimit(.minutes(2)), .needsFirecracker)
struct GuestSourceTests {
    @Test("takes no workload, says where one can arrive, and knows what it has moved")
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
}
