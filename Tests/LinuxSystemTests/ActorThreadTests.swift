import Glibc
import LinuxSystem
import OwnThread
import Synchronization
import Testing

@Suite("The thread of an actor", .timeLimit(.minutes(1)))
struct ActorThreadTests {
    private actor Owner {
        let thread: ActorThread
        private(set) var names: [String] = []
        private(set) var order: [Int] = []

        nonisolated var unownedExecutor: UnownedSerialExecutor { thread.executor }

        init() throws {
            thread = try ActorThread(name: "of-an-actor")
        }

        func note(_ number: Int) {
            order.append(number)
            names.append(ProcessFile.text("/proc/thread-self/comm") ?? "")
        }
    }

    @Test("runs the actor's tasks and pieces of work, and nothing else does")
    func runs() async throws {
        let owner = try Owner()
        await owner.note(0)
        for number in 1...100 {
            owner.thread.run { owner.assumeIsolated { $0.note(number) } }
        }
        await owner.note(101)
        #expect(await owner.order == Array(0...101))
        #expect(await Set(owner.names) == ["of-an-actor\n"])
    }

    @Test("ends with its actor, even if the actor ends on it")
    func end() async throws {
        for _ in 0..<20 {
            let owner = try Owner()
            // The last reference to the actor may be that of the piece of work.
            owner.thread.run { owner.assumeIsolated { $0.note(1) } }
        }
        while try RunningThread.all().contains(where: { $0.name == "of-an-actor" }) { await Task.yield() }
    }
}
