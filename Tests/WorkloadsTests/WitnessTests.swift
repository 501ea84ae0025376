import Foundation
import Guest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("The witness of a workload", .timeLimit(.minutes(1)))
final class WitnessTests {
    private let path = "/tmp/pft-witness-\(UInt32.random(in: 0...UInt32.max))"

    deinit {
        // A test that failed early has not made the file.
        try? FileManager.default.removeItem(atPath: path)
    }

    private func makeFile(bytes: Int) throws {
        try Data(count: bytes).write(to: URL(fileURLWithPath: path))
    }

    private func word(_ index: Int) throws -> UInt64 {
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        return data.withUnsafeBytes { $0.load(fromByteOffset: index * 8, as: UInt64.self) }
    }

    @Test("records the begin, the newest operation and the end of each thread's run")
    func runs() throws {
        try makeFile(bytes: 4096)
        let witness = try Witness(path: path)
        let workload = try BuiltInWorkload(new: .small(.random, threads: 2), witness: witness)
        let before = MonotonicClock.now()
        try workload.run(operations: 100)
        try workload.run(operations: 100)
        let after = MonotonicClock.now()
        #expect(try word(0) == 4)
        var operations: UInt64 = 0
        for slot in 1...4 {
            #expect(try word(slot * 8) == UInt64(getpid()))
            let times = try [1, 2, 3].map { try word(slot * 8 + $0) }
            #expect(before < times[0] && times[0] < times[2] && times[2] < after)
            // A thread may be stopped before its first operation.
            #expect(times[1] == 0 || times[0] < times[1] && times[1] < times[2])
            operations += try word(slot * 8 + 4)
        }
        #expect(operations == workload.activity.operations)
    }

    @Test("prevents a run that it has no room to record")
    func full() throws {
        try makeFile(bytes: 4096)
        let witness = try Witness(path: path)
        for _ in 0..<62 { _ = try witness.makeRun() }
        let workload = try BuiltInWorkload(new: .small(.random, threads: 2), witness: witness)
        #expect(throws: WorkloadError.self) { try workload.run() }
        #expect(!workload.activity.isRunning)
        #expect(workload.activity.operations == 0)
    }

    @Test("has a file of whole pages", arguments: [0, 100])
    func wrongSize(bytes: Int) throws {
        try makeFile(bytes: bytes)
        #expect(throws: SystemError.self) { try Witness(path: path) }
    }
}
