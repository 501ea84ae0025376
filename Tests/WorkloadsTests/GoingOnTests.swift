import Guest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("A workload that moved", .timeLimit(.minutes(2)))
struct GoingOnTests {
    @Test("continues exactly where it stopped", arguments: AccessPattern.allCases, [1, 3])
    func exactly(pattern: AccessPattern, threads: Int) throws {
        let configuration = WorkloadConfiguration.small(pattern, threads: threads)
        let stayed = try BuiltInWorkload(new: configuration)
        try stayed.perform(operationsPerThread: 1000)
        let source = try BuiltInWorkload(new: configuration)
        try source.perform(operationsPerThread: 357)
        let destination = try source.moved()
        #expect(destination.isTwin(of: source))
        try destination.perform(operationsPerThread: 643)
        #expect(destination.isTwin(of: stayed))
        #expect(!destination.isTwin(of: source))
        #expect(destination.verify() == Verification(pagesChecked: 500, corrupt: 0))
    }

    @Test("is right on every page after its threads ran on both sides", arguments: AccessPattern.allCases)
    func threads(pattern: AccessPattern) throws {
        let source = try BuiltInWorkload(new: .small(pattern, threads: 2))
        try source.run(operations: 2000)
        #expect(source.verify() == Verification(pagesChecked: 500, corrupt: 0))
        let destination = try source.moved()
        try destination.run(operations: 2000)
        #expect(destination.verify() == Verification(pagesChecked: 500, corrupt: 0))
        let total = destination.threads.reduce(0) { $0 + $1.state.operations }
        #expect(total == source.activity.operations + destination.activity.operations)
    }

    @Test("moves back and forth with its newest state")
    func backAndForth() throws {
        var workload = try BuiltInWorkload(new: .small(.random, threads: 2))
        for round in 1...3 {
            try workload.perform(operationsPerThread: 200)
            workload = try workload.moved()
            #expect(workload.threads.map(\.state.operations) == [UInt64(round) * 200, UInt64(round) * 200])
        }
        #expect(workload.corrupt == 0)
    }

    @Test("touches every page in the end", arguments: [AccessPattern.sequential, .random, .zipf, .chase], [1, 2])
    func everyPage(pattern: AccessPattern, threads: Int) throws {
        let workload = try BuiltInWorkload(new: .small(pattern, pages: 300, threads: threads, writes: 1))
        let written = workload.versions.map { $0 > 0 }
        let rounds = [.random: 20, .zipf: 16][pattern, default: 1]
        try workload.perform(operationsPerThread: UInt64((300 / threads) * rounds))
        #expect(workload.versions.map { $0 > 1 } == written)
    }

    @Test("scans every bucket of its table in the end")
    func everyBucket() throws {
        let workload = try BuiltInWorkload(new: .small(.kv, pages: 100, threads: 2))
        for page in 0..<100 { workload.page(page)[4095] ^= 1 }
        try workload.perform(operationsPerThread: 50 * 16)
        #expect(workload.memory.wrong.count == 100)
    }

    @Test("has one zero page in sixteen", arguments: [AccessPattern.sequential, .random, .zipf])
    func zeroPages(pattern: AccessPattern) throws {
        let workload = try BuiltInWorkload(new: .small(pattern, pages: 1024, writes: 1))
        try workload.perform(operationsPerThread: 2000)
        let zero = (0..<1024).filter { page in workload.page(page).allSatisfy { $0 == 0 } }
        #expect(zero.count == 64)
        #expect(zero.allSatisfy { workload.versions[$0] == 0 })
    }
}
