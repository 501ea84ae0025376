#if DEBUG
import Glibc
import LinuxSystem
import OwnThread
import RunLease
import Testing

/// Kills processes before each of their system calls in turn, and after the last.
@Suite(.ownThread, .timeLimit(.minutes(5)))
struct KillTests {
    private let site: Site

    init() throws { site = try Site() }

    private static func propose(_ record: LeaseRecord, for workload: String, in path: String, endBefore place: Int) {
        let store = try? FileRunLeaseStore(directory: path)
        _ = Calls.at(place) { _ in
            kill(getpid(), SIGKILL)
            return nil
        } _: {
            try? store?.propose(record, for: workload)
        }
        kill(getpid(), SIGKILL)
    }

    @Test(arguments: [1, 2] as [UInt64])
    func `after a kill at any call the next proposer wins or finds a whole record`(epoch: UInt64) async throws {
        let (store, path) = (try site.store(), site.path)
        func prepare(_ workload: String) throws {
            if epoch == 2 { #expect(try store.propose(.of(3), for: workload) == .won) }
        }
        try prepare("counted")
        let calls = try Calls.of { _ = try store.propose(.of(1, epoch: epoch), for: "counted") }
        let link = try #require(calls.firstIndex(of: .linkat))
        #expect(calls.count - link == 3, "the directory's fsync and the removal of the temporary follow")
        for place in 0...calls.count {
            let workload = "vm-\(place)"
            try prepare(workload)
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [path = path as String, workload = workload as String, epoch = epoch as UInt64, place = place as Int] in
                KillTests.propose(.of(1, epoch: epoch), for: workload, in: path, endBefore: place)
            }
            let (dead, next) = (LeaseRecord.of(1, epoch: epoch), LeaseRecord.of(2, epoch: epoch))
            let isWritten = place > link
            #expect(try store.propose(next, for: workload) == (isWritten ? .lost(newest: dead) : .won))
            #expect(try store.propose(dead, for: workload) == (isWritten ? .won : .lost(newest: next)))
            #expect(try store.propose(.of(2, epoch: epoch + 1), for: workload) == .won)
        }
    }

    @Test func `a store can be used after a kill at any call of its creation`() async throws {
        let counted = try Site()
        let count = try Calls.of { _ = try counted.store() }.count
        for place in 0...count {
            let site = try Site()
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = site.path as String, place = place as Int] in
                _ = Calls.at(place) { _ in
                    kill(getpid(), SIGKILL)
                    return nil
                } _: {
                    try? FileRunLeaseStore(directory: path)
                }
                kill(getpid(), SIGKILL)
            }
            #expect(try site.store().name == site.store().name)
            #expect(try site.store().propose(.of(1)) == .won)
        }
    }
}
#endif
