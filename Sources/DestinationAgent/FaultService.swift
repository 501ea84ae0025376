import LinuxSystem
import PageProtocol
import Synchronization

/// The thread that reads faults, asks for their pages on the urgent lane, and places them.
///
/// One thread does both ways: a fault costs no more wake-ups than it must, and whatever has come in the meantime is
/// answered by one call.
final class FaultService: Sendable {
    private struct State {
        var lanes: LaneSockets?
        /// Whether the thread is there to turn to other lanes.
        var isServing = false
        var isStopping = false
    }

    private let memory: ArrivingMemory
    private let prefetch: Prefetch
    private let onEvent: @Sendable (DestinationAgent.Event) -> Void
    private let state = Mutex(State())
    private let flag: EventDescriptor
    /// Raised when the thread has turned to the lanes that it was given, or has ended.
    private let turned: EventDescriptor

    init(
        memory: ArrivingMemory,
        prefetch: Prefetch,
        onEvent: @escaping @Sendable (DestinationAgent.Event) -> Void
    ) throws(SystemError) {
        self.memory = memory
        self.prefetch = prefetch
        self.onEvent = onEvent
        flag = try EventDescriptor()
        turned = try EventDescriptor()
    }

    /// From now on requests go to these lanes; nil lets faults wait. Those used before have been shut down; when this
    /// returns, nothing more is placed from them. Called by one thread at a time.
    func use(_ lanes: LaneSockets?) {
        turned.clear()
        let isServing = state.withLock { state in
            state.lanes = lanes
            return state.isServing
        }
        guard isServing else { return }
        flag.raise()
        turned.wait()
    }

    /// Lets the thread end.
    func stop() {
        state.withLock { $0.isStopping = true }
        flag.raise()
    }

    func run() {
        state.withLock { $0.isServing = true }
        // Lanes may have been given before.
        flag.raise()
        do {
            switch prefetch {
            case .none: try serve(NoPrefetch())
            case .faultAround(let window): try serve(FaultAround(bounds(window: window)))
            case .streams(let window): try serve(Streams(bounds(window: window)))
            }
        } catch {
            onEvent(.failed(reason: "\(error)"))
        }
        state.withLock { $0.isServing = false }
        turned.raise()
    }

    /// Places what has come.
    ///
    /// - Returns: false if nothing more comes from this lane: it has ended, or a page could not be placed, which other
    ///   lanes bring again.
    @inline(__always)
    private func receive(from receiver: inout LaneReceiver?) -> Bool {
        do throws(PlacementFailure) {
            return try receiver?.receive(onEvent) ?? true
        } catch {
            onEvent(.failed(reason: error.reason))
            return false
        }
    }

    private func bounds(window: Int) -> [PrefetchBounds] {
        memory.ranges.map { PrefetchBounds($0, window: window) }
    }

    private func serve(_ policy: consuming some PrefetchPolicy) throws {
        var requests = RequestBatch(memory: memory)
        var events = Userfaultfd.EventBuffer(capacity: RequestBatch.capacity)
        var ready = FaultWait(for: memory.userfaultfd, or: flag)
        var receiver: LaneReceiver?
        while true {
            let found = try ready.wait()
            if found.contains(.flag) {
                flag.clear()
                let (lanes, isStopping) = state.withLock { ($0.lanes, $0.isStopping) }
                if isStopping { return }
                receiver = lanes.map { LaneReceiver(.urgent, sockets: $0, memory: memory) }
                requests.use(lanes)
                if let lanes { ready.watch(lanes.urgent) } else { ready.watchNoSocket() }
                turned.raise()
                continue
            }
            if found.contains(.socket), !receive(from: &receiver) {
                receiver = nil
                requests.use(nil)
                ready.watchNoSocket()
            }
            if found.contains(.events) {
                try memory.userfaultfd.read(into: &events)
                let now = MonotonicClock.now()
                for index in 0..<events.count {
                    guard case .fault(let address, let thread) = events[index] else { continue }
                    try requests.add(address: address, thread: thread, now: now)
                }
                requests.lookAhead(by: &policy)
                requests.send()
            }
            if found.contains(.hangUp) {
                onEvent(.failed(reason: "the process whose memory is served has ended"))
                return
            }
        }
    }
}
