import Glibc
import LinuxSystem
import OwnThread
import Synchronization
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ThreadTests {
    @Test func `a thread has its name, cut off at the kernel's limit`() throws {
        let shared = SharedName()
        let thread = try JoinedThread(name: "a-name-that-is-much-too-long") {
            shared.set(ProcessFile.text("/proc/thread-self/comm") ?? "")
        }
        thread.join()
        #expect(shared.value == "a-name-that-is-\n")
    }

    @Test func `a running thread is found by its name and number`() throws {
        let number = SharedNumber()
        let thread = try JoinedThread(name: "looks-for-itself") {
            let own = (try? RunningThread.all())?.filter { $0.name == "looks-for-itsel" } ?? []
            let stat = ProcessFile.text("/proc/thread-self/stat") ?? ""
            guard own.count == 1, stat.hasPrefix("\(own[0].id) ") else { return }
            number.value.store(own[0].id, ordering: .releasing)
        }
        thread.join()
        #expect(number.value.load(ordering: .acquiring) > 0)
    }

    @Test func `a thread does not inherit the slice or the timer slack of the thread that started it`() throws {
        @Sendable func settings() -> String {
            let slice = (ProcessFile.text("/proc/thread-self/sched") ?? "").split(separator: "\n")
                .first { $0.hasPrefix("se.slice") }
            return "\(slice ?? "no slice"), \(ProcessFile.text("/proc/self/timerslack_ns") ?? "no slack")"
        }
        let (usual, inherited, urgent) = (SharedName(), SharedName(), SharedName())
        try JoinedThread(name: "usual") { usual.set(settings()) }.join()
        try JoinedThread(name: "urgent", pace: .urgent) {
            urgent.set(settings())
            // The name stays empty if the kernel refuses the thread, which the comparison below shows.
            try? JoinedThread(name: "inner") { inherited.set(settings()) }.join()
        }.join()
        #expect(inherited.value == usual.value)
        #expect(urgent.value != usual.value)
    }

    @Test func `joining waits for the end of the thread`() throws {
        let flag = try SharedFlag()
        let ended = Counts()
        let thread = try JoinedThread(name: "waits") {
            flag.flag.wait()
            ended.add(1)
        }
        #expect(ended.sum == 0)
        flag.flag.raise()
        thread.join()
        #expect(ended.sum == 1)
    }

    @Test func `a group waits for all of its threads and counts them`() throws {
        let flag = try SharedFlag()
        let ended = Counts()
        let group = ThreadGroup()
        for _ in 0..<8 {
            try group.run("member") {
                flag.flag.wait()
                ended.add(1)
            }
        }
        #expect(group.count == 8)
        flag.flag.raise()
        group.join()
        #expect(ended.sum == 8)
        #expect(group.count == 0)
        // The group can be used again.
        try group.run("again") { ended.add(1) }
        group.join()
        #expect(ended.sum == 9)
    }

    @Test func `a group that keeps its threads reuses them, and lets go of what they did`() throws {
        let group = ThreadGroup(keepingThreadsFor: .seconds(30))
        weak var held: SharedName?
        do {
            let object = SharedName()
            held = object
            try group.run("first") {
                object.set("done")
            }
        }
        let first = try idleThread(of: group)
        #expect(held == nil && first.name == "first")
        let seen = SharedName()
        try group.run("second") { seen.set(ProcessFile.text("/proc/thread-self/comm") ?? "") }
        let second = try idleThread(of: group)
        #expect(seen.value == "second\n" && second.id == first.id)
        // Joining does not wait for the rest.
        group.join()
        #expect(try RunningThread.all().allSatisfy { $0.id != first.id })
        try group.run("third") {}
        group.join()
    }

    @Test func `a thread that is kept ends when no work comes`() throws {
        let group = ThreadGroup(keepingThreadsFor: .milliseconds(1))
        for _ in 0..<200 {
            let ran = try SharedFlag()
            try group.run("kept-briefly") { ran.flag.raise() }
            // Work that arrives as the thread ends is done all the same.
            ran.flag.wait()
            MonotonicClock.sleep(nanoseconds: 1_000_000)
        }
        while try RunningThread.all().contains(where: { $0.name == "kept-briefly" }) { JoinedThread.yield() }
    }

    /// Waits until the group's only thread has done its work, and returns that thread.
    private func idleThread(of group: ThreadGroup) throws -> RunningThread {
        while group.count > 0 { JoinedThread.yield() }
        let found = try RunningThread.all().first { $0.name == "first" || $0.name == "second" }
        return try #require(found)
    }

    @Test func `a thread may outlive every other reference to its group`() throws {
        let begun = try SharedFlag()
        let flag = try SharedFlag()
        let ended = try SharedFlag()
        do {
            let group = ThreadGroup()
            try group.run("outlives") {
                begun.flag.raise()
                flag.flag.wait()
                ended.flag.raise()
            }
            begun.flag.wait()
        }
        flag.flag.raise()
        ended.flag.wait()
    }

    @Test func `a raised flag stays raised until it is cleared`() throws {
        let flag = try EventDescriptor()
        #expect(flag.wait(seconds: 0) == false)
        flag.raise()
        flag.raise()
        flag.wait()
        #expect(flag.wait(seconds: 0) == true)
        flag.clear()
        #expect(flag.wait(seconds: 0) == false)
        flag.clear()
    }

    @Test func `a value is handed over once`() throws {
        let handover = Handover(try EventDescriptor())
        let (first, second) = (handover.take() != nil, handover.take() != nil)
        #expect(first && !second)
    }

    private final class SharedName: Sendable {
        private let name = Mutex("")
        var value: String { name.withLock(\.self) }
        func set(_ value: String) { name.withLock { $0 = value } }
    }
}

/// A number that a thread sets.
private final class SharedNumber: Sendable {
    let value = Atomic<Int>(0)
}
