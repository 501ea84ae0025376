import Guest
import LinuxSystem
import Synchronization
import Telemetry

/// A workload in another process: it runs when it is told to, and only it knows its pages.
final class AttachedWorkload: Workload {
    let description: GuestDescription
    private let process: AttachedProcess
    private let isRunning = Atomic<Bool>(false)
    private let watch = ThreadGroup()

    init(description: GuestDescription, process: AttachedProcess) {
        self.description = description
        self.process = process
    }

    var devices: DeviceSet {
        DeviceSet(elsewhere: { [process] in try process.load($0) })
    }

    func run(_ permit: consuming RunPermit) throws {
        try process.run()
        isRunning.store(true, ordering: .releasing)
        try watch.run("attached") { [weak self, process] in
            process.waitForEnd()
            self?.isRunning.store(false, ordering: .releasing)
        }
    }

    func stop() throws {
        throw AttachmentError("\(process.name) runs by itself; stop it there")
    }

    var activity: WorkloadActivity {
        var activity = WorkloadActivity()
        activity.isRunning = isRunning.load(ordering: .acquiring)
        return activity
    }

    var stalls: [LatencyRecorder] { [] }

    func verify() -> Verification? { nil }
}
