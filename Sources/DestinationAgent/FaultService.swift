import LinuxSystem
import PageProtocol
import Synchronization

/// The thread that reads faults and asks for their pages.
final class FaultService: Sendable {
    private let memory: ArrivingMemory
    private let flag: EventDescriptor
    private let isStopping = Atomic<Bool>(false)
    private let sockets = Mutex<LaneSockets?>(nil)

    init(memory: ArrivingMemory) throws(SystemError) {
        self.memory = memory
        flag = try EventDescriptor()
    }

    /// From now on requests go to these lanes; nil lets faults wait.
    func use(_ lanes: LaneSockets?) {
        sockets.withLock { $0 = lanes }
        flag.raise()
    }

    /// Lets the thread end.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        flag.raise()
    }

    func run() {
        do {
            try serve()
        } catch {
            memory.onEvent(.failed(reason: "\(error)"))
        }
    }

    private func serve() throws {
        var requests = RequestBatch(memory: memory)
        var events = Userfaultfd.EventBuffer(capacity: RequestBatch.capacity)
        while true {
            switch try memory.userfaultfd.wait(or: flag) {
            case .flag:
                flag.clear()
                if isStopping.load(ordering: .acquiring) { return }
                requests.use(sockets.withLock { $0 })
            case .hangUp:
                memory.onEvent(.failed(reason: "the process whose memory is served has ended"))
                return
            case .events:
                try memory.userfaultfd.read(into: &events)
                let now = MonotonicClock.now()
                for index in 0..<events.count {
                    guard case .fault(let address) = events[index] else { continue }
                    try requests.add(address: address, now: now)
                }
                requests.send()
            }
        }
    }
}
