import Glibc
import LinuxSystem
import OwnThread
import Synchronization
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ThreadTests {
    @Test func `a thread has its name as far as the kernel keeps it`() throws {
        let shared = SharedName()
        let thread = try JoinedThread(name: "a-name-that-is-much-too-long") {
            shared.set(ProcessFile.text("/proc/thread-self/comm") ?? "")
        }
        thread.join()
        #expect(shared.value == "a-name-that-is-\n")
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
        // It can be used again.
        try group.run("again") { ended.add(1) }
        group.join()
        #expect(ended.sum == 9)
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
