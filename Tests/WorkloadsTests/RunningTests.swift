import Glibc
import Guest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("A running workload", .timeLimit(.minutes(2)))
struct RunningTests {
    @Test("stops at once, however long its threads think")
    func promptStop() throws {
        let workload = try BuiltInWorkload(new: .small(.random, threads: 4, thinkTime: 3_600_000_000_000))
        try workload.run()
        while workload.activity.operations < 4 { sched_yield() }
        let begin = MonotonicClock.now()
        workload.stop()
        #expect(MonotonicClock.now() - begin < 200_000_000)
        #expect(workload.activity.operations == 4)
        workload.stop()
    }

    @Test("thinks between two operations, for microseconds or milliseconds", arguments: [20_000, 2_000_000])
    func thinkTime(nanoseconds: UInt64) throws {
        let workload = try BuiltInWorkload(new: .small(.random, thinkTime: nanoseconds))
        try workload.run(operations: 10)
        let activity = workload.activity
        let time = try #require(activity.lastOperation) - #require(activity.firstOperation)
        #expect(time >= (activity.operations - 1) * nanoseconds)
    }

    @Test("reports its operations and their times")
    func activity() throws {
        let workload = try BuiltInWorkload(new: .small(.sequential, threads: 2))
        #expect(workload.activity == WorkloadActivity())
        let begin = MonotonicClock.now()
        try workload.run()
        #expect(workload.activity.isRunning)
        while workload.activity.operations < 1000 { sched_yield() }
        workload.stop()
        let first = workload.activity
        #expect(!first.isRunning)
        #expect(first.operations == first.operationsSinceStart)
        let times = try (#require(first.firstOperation), #require(first.lastOperation))
        #expect(begin < times.0 && times.0 < times.1 && times.1 < MonotonicClock.now())
        try workload.run(operations: 100)
        let second = workload.activity
        #expect(second.operations == first.operations + second.operationsSinceStart)
        let next = try #require(second.firstOperation)
        #expect(next > times.1)
        #expect(workload.stalls.count == 2)
    }

    @Test("stops when its last reference is gone")
    func dropped() throws {
        var workload: BuiltInWorkload? = try BuiltInWorkload(new: .small(.random))
        weak let memory = workload?.memory
        try workload?.run()
        workload = nil
        #expect(memory == nil)
    }

    @Test("writes with the configured fraction of its operations", arguments: [0, 0.25, 1])
    func writeFraction(fraction: Double) throws {
        let workload = try BuiltInWorkload(new: .small(.chase, writes: fraction))
        try workload.perform(operationsPerThread: 5000)
        let writes = workload.versions.reduce(0) { $0 + Int($1) - 1 }
        #expect(abs(Double(writes) / 5000 - fraction) < (fraction == 0.25 ? 0.03 : 1e-9))
    }

    @Test("has a clock that stands still during a stop, moves with the workload, and never goes back")
    func clock() throws {
        let source = try BuiltInWorkload(new: .small(.random))
        #expect(source.guestTime == 0)
        try source.run(operations: 100)
        let time = source.guestTime
        #expect(time > 0)
        let destination = try source.moved()
        #expect(destination.guestTime == time && source.guestTime == time)
        try destination.run(operations: 100)
        #expect(destination.guestTime > time)
    }

    @Test("has a console that moves with it and keeps the newest text")
    func console() throws {
        let source = try BuiltInWorkload(new: .small(.random))
        try source.run(operations: 100)
        #expect(source.consoleText.contains("] running random\n"))
        #expect(source.consoleText.contains("] stopped after \(source.activity.operations) operations\n"))
        for line in 0..<300 { source.console.write("line \(line)") }
        let destination = try source.moved()
        #expect(destination.consoleText == source.consoleText)
        destination.console.write("here")
        #expect(destination.console.total == source.console.total + UInt64("[0.000] here\n".utf8.count))
        #expect(destination.consoleText.utf8.count == ConsoleDevice.capacity)
        let newest = destination.consoleText.split(separator: "\n").suffix(2).map { $0.split(separator: "] ").last }
        #expect(newest == ["line 299", "here"])
    }
}
