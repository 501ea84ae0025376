import Guest
import LinuxSystem
import Synchronization
import Telemetry

/// A workload in another process: it runs when it is told to, and only it knows its pages.
final class AttachedWorkload: Workload {
    let ownMemory: [MemoryRegion]? = nil
    let description: GuestDescription
    private let process: AttachedProcess
    /// Called when it goes and its process has been told nothing: it can take another guest.
    private let onUnused: @Sendable () -> Void
    /// Called when the process is to be told something: it takes no other guest.
    private let onUse: @Sendable () -> Void
    private let isRunning = Atomic<Bool>(false)
    private let isUsed = Atomic<Bool>(false)
    private let end = EndNotice()
    private let watch = ThreadGroup()

    init(
        description: GuestDescription,
        process: AttachedProcess,
        onUse: @escaping @Sendable () -> Void,
        onUnused: @escaping @Sendable () -> Void
    ) {
        self.description = description
        self.process = process
        self.onUse = onUse
        self.onUnused = onUnused
    }

    deinit {
        if !isUsed.load(ordering: .acquiring) { onUnused() }
    }

    var devices: DeviceSet {
        DeviceSet(elsewhere: { [self] saved in
            use()
            try process.load(saved)
        })
    }

    private func use() {
        isUsed.store(true, ordering: .releasing)
        onUse()
    }

    func run(_ permit: consuming RunPermit) throws -> StartResult {
        use()
        // What can fail comes before RUN: to throw is to say that nothing was executed.
        let start = try Start()
        try watch.run("attached") { [weak self, process] in
            guard start.wait() else { return }
            process.waitForEnd()
            self?.noteEnd()
        }
        let isAlive: Bool
        do {
            isAlive = try process.run()
        } catch {
            start.decide(false)
            throw error
        }
        isRunning.store(isAlive, ordering: .releasing)
        start.decide(true)
        return isAlive ? .runs : .ended(reason: endReason)
    }

    private var endReason: String { "\(process.name) has ended or hung up" }

    func memoryIsWhole() {
        guard isRunning.load(ordering: .acquiring) else { return }
        // The process may have ended, or hung up.
        try? process.tellWhole()
    }

    /// Whether the process was started, for the thread that then watches it.
    private final class Start: Sendable {
        private let flag: EventDescriptor
        private let isDone = Atomic<Bool>(false)

        init() throws(SystemError) {
            flag = try EventDescriptor()
        }

        func decide(_ isDone: Bool) {
            self.isDone.store(isDone, ordering: .releasing)
            flag.raise()
        }

        func wait() -> Bool {
            flag.wait()
            return isDone.load(ordering: .acquiring)
        }
    }

    private func noteEnd() {
        isRunning.store(false, ordering: .releasing)
        end.note(endReason)
    }

    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        end.onEnd(tell)
    }

    func stop() throws {
        throw AttachmentError("\(process.name) runs by itself; stop it there")
    }

    let endsWithAgent = false

    var activity: WorkloadActivity {
        var activity = WorkloadActivity()
        activity.isRunning = isRunning.load(ordering: .acquiring)
        return activity
    }

    var stalls: [LatencyRecorder] { [] }
    var blockedNanoseconds: UInt64? { nil }

    let canVerify = false
    func verify() -> Verification? { nil }
}
