import Foundation
import LinuxSystem
import OwnThread
import RunLease
import Synchronization
import Testing

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct RaceTests {
    private let site: Site

    init() throws { site = try Site() }

    /// Proposes each epoch up to `last` as soon as it is next, and returns the epochs that were won.
    private static func contend(as side: Int, in store: FileRunLeaseStore, last: UInt64) throws -> [UInt64] {
        var won: [UInt64] = []
        while true {
            let epoch = (try store.newest()?.epoch ?? 0) + 1
            guard epoch <= last else { return won }
            switch try store.propose(.of(side, epoch: epoch)) {
            case .won: won.append(epoch)
            case .lost(let newest): #expect(newest.epoch >= epoch)
            }
        }
    }

    /// Checks that each epoch has one winner, and that the record is the winner's.
    private func check(_ wins: [(side: Int, epochs: [UInt64])], last: UInt64) throws {
        #expect(wins.flatMap(\.epochs).sorted() == Array(1...last))
        for (side, epochs) in wins {
            for epoch in epochs { #expect(try site.store().propose(.of(side, epoch: epoch)) == .won) }
        }
        #expect(try site.names(in: "vm").count == Int(last), "temporary files are left")
    }

    @Test func `exactly one of many threads wins each epoch`() throws {
        let wins = Mutex<[(side: Int, epochs: [UInt64])]>([])
        let group = ThreadGroup()
        for side in 1...8 {
            let store = try site.store()
            try group.run("side-\(side)") {
                do {
                    let epochs = try RaceTests.contend(as: side, in: store, last: 50)
                    wins.withLock { $0.append((side, epochs)) }
                } catch {
                    Issue.record("side \(side): \(error)")
                }
            }
        }
        group.join()
        try check(wins.withLock { $0 }, last: 50)
    }

    @Test func `exactly one of several processes wins each epoch`() async throws {
        let path = site.path
        await withTaskGroup { group in
            for side in 1...4 {
                group.addTask {
                    await #expect(processExitsWith: .success) { [path = path as String, side = side as Int] in
                        let store = try FileRunLeaseStore(directory: path)
                        // Every process is ready before the first one begins.
                        _ = try store.propose(.of(side), for: "ready-\(side)")
                        while try (1...4).contains(where: { try store.newest("ready-\($0)") == nil }) { usleep(1000) }
                        let epochs = try RaceTests.contend(as: side, in: store, last: 100)
                        try JSONEncoder().encode(epochs).write(to: URL(fileURLWithPath: "\(path)/won-\(side)"))
                    }
                }
            }
        }
        let wins = try (1...4).map { side in
            let epochs = try Data(contentsOf: URL(fileURLWithPath: "\(path)/won-\(side)"))
            return (side, try JSONDecoder().decode([UInt64].self, from: epochs))
        }
        try check(wins, last: 100)
    }

    #if DEBUG
    @Test(arguments: [1, 2] as [UInt64])
    func `exactly one side wins if one proposes before any call of the other`(epoch: UInt64) throws {
        let store = try site.store()
        func prepare(_ workload: String) throws {
            if epoch == 2 { #expect(try store.propose(.of(3), for: workload) == .won) }
        }
        let (one, other) = (LeaseRecord.of(1, epoch: epoch), LeaseRecord.of(2, epoch: epoch))
        try prepare("counted")
        let count = try Calls.of { _ = try store.propose(one, for: "counted") }.count
        for place in 0..<count {
            let workload = "vm-\(place)"
            try prepare(workload)
            let others = Mutex<LeaseProposal?>(nil)
            let own = try Calls.at(place) { _ in
                let proposal = try? store.propose(other, for: workload)
                others.withLock { $0 = proposal }
                return nil
            } _: {
                try store.propose(one, for: workload)
            }
            switch (own, others.withLock { $0 }) {
            case (.won, .lost(one)), (.lost(other), .won): break
            case (let own, let other): Issue.record("before call \(place): \(own) and \(other as Any)")
            }
        }
    }

    @Test func `a slow side and a fast side agree`() throws {
        let (slow, fast) = (try site.store(), try site.store())
        for epoch in 1...5 as ClosedRange<UInt64> {
            let (own, other) = (LeaseRecord.of(1, epoch: epoch), LeaseRecord.of(2, epoch: epoch))
            let others = Mutex<LeaseProposal?>(nil)
            let thread = try JoinedThread(name: "fast") {
                // The slow side proposes before or after the fast side's link.
                usleep(UInt32(epoch) * 5000)
                let proposal = try? fast.propose(other)
                others.withLock { $0 = proposal }
            }
            let proposal = try ForcedErrno.asking({ _ in
                usleep(2000)
                return nil
            }) {
                try slow.propose(own)
            }
            thread.join()
            let pair = (proposal, others.withLock { $0 })
            #expect(pair == (.won, .lost(newest: own)) || pair == (.lost(newest: other), .won))
        }
    }
    #endif
}
