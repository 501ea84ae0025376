import Foundation
import Testing

@Suite("Prefetching")
struct AheadTests {
    @Test("hardly duplicates pages that the push has under way at 1 Gbit/s", .timeLimit(.minutes(2)))
    func duplicates() throws {
        // A reader that is almost as fast as the push reads pages that are in flight.
        for threads in [1, 1, 2] {
            let workspace = try Workspace()
            let hosts = try TwoHosts(rate: "1gbit")
            let source = try AgentProcess.source(
                in: workspace,
                on: (hosts, hosts.source),
                "--workload",
                "sequential",
                "--memory",
                "128MiB",
                "--threads",
                "\(threads)"
            )
            defer { source.end() }
            let destination = try AgentProcess.destination(
                in: workspace,
                on: (hosts, hosts.destination),
                "--listen",
                "\(TwoHosts.destinationAddress):7000",
                "--insecure",
                "--prefetch",
                "streams"
            )
            defer { destination.end() }
            let migrated = try Executable.migrate(source, destination, "--json")
            #expect(migrated.status == 0, "\(migrated)")
            let report = try Printed(migrated.output)
            // A page that a thread waits for may arrive twice; all but a few of the others arrive once.
            let ahead = try report.number("pages", "duplicate") - report.number("stall_us", "count")
            let share = try ahead / report.number("pages", "total")
            #expect(share < 0.02, "\(share * 100) % of the pages: \(migrated.output)")
        }
    }
}
