import Glibc
@_spi(Controller) import Guest
import LandedGuest
import LinuxSystem
import LogLines
import OwnThread
import Synchronization
import SystemPackage
import Testing

@testable import Attachments

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct AttachedWorkloadTests {
    private let states = [
        DeviceSet.Saved(name: "clock", state: [1, 2, 3]), DeviceSet.Saved(name: "empty", state: []),
    ]

    /// Runs the agent's part on a thread beside the process's part, and returns the agent's outcome.
    private func outcome<Value>(of body: @escaping @Sendable () throws -> Value, _ process: () throws -> Void) throws
        -> String
    {
        let result = Outcome()
        let thread = try JoinedThread(name: "agent") {
            do {
                _ = try body()
                result.set("done")
            } catch {
                result.set("\(error)")
            }
        }
        let played = Result { try process() }
        thread.join()
        try played.get()
        return result.value
    }

    private final class Outcome: Sendable {
        private let text = Mutex("")
        var value: String { text.withLock(\.self) }
        func set(_ value: String) { text.withLock { $0 = value } }
    }

    @Test func `devices are loaded before the run, each by its name and state`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { [states] in try workload.run(RunPermit(workload.devices.load(states))) }) {
            #expect(try process.nextOrder() == .init(kind: 2, payload: [5, 0] + Array("clock".utf8) + [1, 2, 3]))
            #expect(try process.nextOrder() == .init(kind: 2, payload: [5, 0] + Array("empty".utf8)))
            #expect(try process.nextOrder() == .load)
            try process.answerDone()
            #expect(try process.nextOrder() == .run)
            #expect(!workload.activity.isRunning)
            try process.answerDone()
        }
        #expect(outcome == "done")
        #expect(workload.activity.isRunning)
        #expect(try workload.verify() == nil)
        #expect(throws: AttachmentError.self) { try workload.stop() }
    }

    @Test func `only a process that runs is told that its memory is complete`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        workload.memoryIsWhole()
        let outcome = try outcome(of: { try workload.run(RunPermit(.inPlace())) }) {
            #expect(try process.nextOrder() == .run)
            try process.answerDone()
        }
        #expect(outcome == "done")
        workload.memoryIsWhole()
        #expect(try process.nextOrder() == .whole)
        process.socket.shutdown()
    }

    @Test func `a process that cannot load says why`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { [states] in _ = try workload.devices.load(states) }) {
            while try process.nextOrder() != .load {}
            try process.answerFailed("the clock is broken")
        }
        #expect(outcome == "process \(getpid()) cannot load its devices: the clock is broken")
    }

    @Test func `a process that cannot start says why and does not run`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { try workload.run(RunPermit(.inPlace())) }) {
            #expect(try process.nextOrder() == .run)
            try process.answerFailed("no processor")
        }
        #expect(outcome == "process \(getpid()) cannot start: no processor")
        #expect(!workload.activity.isRunning)
    }

    @Test func `the death of a process before its devices have loaded is reported`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { _ = try workload.devices.load([]) }) { () throws in
            #expect(try process.nextOrder() == .load)
            process.socket.shutdown()
        }
        #expect(outcome.contains("process \(getpid()) has hung up"))
    }

    @Test(arguments: [UInt32(0x101), 0x102, 7])
    func `a message that is not an answer is refused`(kind: UInt32) throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { _ = try workload.devices.load([]) }) {
            #expect(try process.nextOrder() == .load)
            try process.answer(kind, [], length: 0x7fff_ffff)
        }
        #expect(outcome.hasSuffix("answered with a message of kind \(kind) and 2147483647 bytes"))
    }

    @Test func `a process that disconnects without an answer to RUN counts as started, since it may have run`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { try workload.run(RunPermit(.inPlace())) }) { () throws in
            #expect(try process.nextOrder() == .run)
            process.socket.shutdown()
        }
        #expect(outcome == "done")
    }

    @Test func `a process that has ended no longer counts as running`() async throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let outcome = try outcome(of: { try workload.run(RunPermit(.inPlace())) }) {
            #expect(try process.nextOrder() == .run)
            try process.answerDone()
        }
        #expect(outcome == "done")
        process.socket.shutdown()
        while workload.activity.isRunning { await Task.yield() }
    }

    @Test func `the end of a process reaches a handler that was set before or after the end`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let (before, after) = (LogLines(), LogLines())
        workload.onEnd { before.add($0) }
        let outcome = try outcome(of: { try workload.run(RunPermit(.inPlace())) }) {
            #expect(try process.nextOrder() == .run)
            try process.answerDone()
        }
        #expect(outcome == "done")
        #expect(before.all == [])
        process.socket.shutdown()
        #expect(before.first(containing: "process \(getpid()) has hung up, and may run on") != nil)
        workload.onEnd { after.add($0) }
        #expect(after.all == before.all)
    }

    #if DEBUG
    @Test func `a start that fails in the agent fails before the process is told to run`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.eventfd: [.tooManyOpenFiles]]) { try workload.run(RunPermit(.inPlace())) }
        }
        #expect(error.errno == .tooManyOpenFiles)
        // The next order comes from the start that succeeds.
        let outcome = try outcome(of: { [states] in _ = try workload.devices.load(states) }) {
            #expect(try process.nextOrder()?.kind == AttachingProcess.Order.device)
            while try process.nextOrder() != .load {}
            try process.answerDone()
        }
        #expect(outcome == "done")
    }
    #endif

    @Test(arguments: [[4, 4], [5], [3]])
    func `a guest that does not fit is refused, and the process waits for the next guest`(pageCounts: [Int]) throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach(pageCounts: pageCounts)
        let error = try #require(throws: AttachmentError.self) { _ = try site.workload(pageCounts: [4]) }
        #expect(error.description.hasPrefix("process \(getpid()) does not fit the workload: its regions have "))
        let workload = try site.workload(pageCounts: pageCounts)
        let outcome = try outcome(of: { try workload.run(RunPermit(.inPlace())) }) {
            #expect(try process.nextOrder() == .run)
            try process.answerDone()
        }
        #expect(outcome == "done")
        process.socket.shutdown()
    }

    @Test func `a process whose guest left before any order accepts the next guest`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        do { _ = try site.landing.land(Site.guest(pageCounts: [4])) }
        let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
        #expect(prepared.memory.ranges == process.regions.map(\.range))
        // The memory is still registered, so that missing pages do not read as zeros.
        let content = try MemoryRegion(name: "content", pageCount: 1)
        content.base.storeBytes(of: 8, as: UInt8.self)
        let address = process.regions[0].range.address
        #expect(
            prepared.memory.userfaultfd.copy(to: address, from: content.base, byteCount: 4096) == .placed(bytes: 4096)
        )
        #expect(process.regions[0].page(0).load(as: UInt8.self) == 8)
    }

    @Test func `a process whose guest left after another process had attached is released`() throws {
        let site = try Site()
        defer { site.end() }
        let first = try site.attach()
        let second: AttachingProcess
        do {
            let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
            #expect(prepared.memory.ranges == first.regions.map(\.range))
            second = try site.attach()
        }
        #expect(try first.nextOrder()?.refusal == "another process has attached")
        let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
        #expect(prepared.memory.ranges == second.regions.map(\.range))
    }

    @Test func `a process that has received a device accepts no other guest`() async throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        do {
            let workload = try site.workload()
            let outcome = try outcome(of: { _ = try workload.devices.load([]) }) {
                #expect(try process.nextOrder() == .load)
                try process.answerFailed("no")
            }
            #expect(outcome.hasSuffix("no"))
        }
        await #expect(throws: AttachmentError.self) { _ = try await apart { try site.workload() } }
        #expect(try process.nextOrder() == nil)
    }

    @Test func `a guest with another page size than the process's is refused`() throws {
        let site = try Site()
        defer { site.end() }
        _ = try site.attach(pageCounts: [512])
        let guest = Site.guest(pageCounts: [1], pageSize: 2 << 20)
        #expect(throws: AttachmentError.self) { _ = try site.landing.land(guest) }
    }

    @Test func `the process that attached last is used, and the one before is refused`() throws {
        let site = try Site()
        defer { site.end() }
        let first = try site.attach()
        let second = try site.attach()
        #expect(try first.nextOrder()?.refusal == "another process has attached")
        let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
        #expect(prepared.memory.ranges == second.regions.map(\.range))
    }

    @Test func `a process that attaches while a migration waits is used`() throws {
        let site = try Site()
        defer { site.end() }
        let outcome = try outcome(of: { _ = try site.workload() }) {
            _ = try site.attach()
        }
        #expect(outcome == "done")
    }

    @Test func `without a process the migration is refused after a grace period`() async throws {
        let site = try Site()
        defer { site.end() }
        let error = try await #require(throws: AttachmentError.self) { _ = try await apart { try site.workload() } }
        #expect(error.description == "no process has attached at unix:\(site.path); start it first")
    }
}
