package import LinuxSystem
import PageProtocol
import Synchronization

/// The threads that serve the lanes of all destinations of a snapshot's server.
package struct SnapshotThreads: Sendable {
    private let urgent: ConnectionThreads
    private let bulk: ConnectionThreads
    private let polling: Duration

    /// Starts the first threads.
    ///
    /// Threads of bulk lanes run in the background, so that their requests wait for urgent ones.
    ///
    /// - Parameter polling: the longest time that the thread of an urgent lane polls for the next request before the
    ///   thread sleeps; zero to never poll.
    package init(polling: Duration = PollBudget.usualLimit) throws(SystemError) {
        self.polling = polling
        urgent = try ConnectionThreads(name: "urgent-serve", pace: .urgent, isGrowing: true)
        do throws(SystemError) {
            bulk = try ConnectionThreads(name: "bulk-serve", pace: .background, isGrowing: true)
        } catch {
            urgent.stop()
            throw error
        }
    }

    /// Ends the threads; every agent must have been detached.
    package func stop() {
        urgent.stop()
        bulk.stop()
    }

    func of(_ lane: Lane) -> ConnectionThreads {
        switch lane {
        case .urgent: urgent
        case .bulk: bulk
        }
    }

    func polling(of lane: Lane) -> Duration {
        switch lane {
        case .urgent: polling
        case .bulk: .zero
        }
    }
}

/// One lane of a snapshot's destination: its own thread answers requests while they come, and none waits for it while
/// it is idle.
final class SnapshotLane: ServedConnection {
    /// The time without a request after which a lane counts as idle.
    ///
    /// The first request after that costs some microseconds more, for buffers and two more calls of the kernel. That is
    /// little beside half a second, and a guest that faults at least twice a second has its thread all the time.
    private static let idleTime = Duration.milliseconds(500)

    private struct Service {
        /// What has arrived of an incomplete request.
        var rest: [UInt8] = []
        var hasEnded = false
    }

    let socket: SharedSocket
    private let lane: Lane
    private let memory: SnapshotMemory
    private let threads: ConnectionThreads
    private let polling: Duration
    private let onEvent: @Sendable (SnapshotPageServer.Event) -> Void
    /// Held by the thread that serves the lane.
    private let service = Mutex(Service())

    init(
        _ socket: SharedSocket,
        _ lane: Lane,
        memory: SnapshotMemory,
        threads: ConnectionThreads,
        polling: Duration,
        onEvent: @escaping @Sendable (SnapshotPageServer.Event) -> Void
    ) throws(SystemError) {
        self.socket = socket
        self.lane = lane
        self.memory = memory
        self.threads = threads
        self.polling = polling
        self.onEvent = onEvent
        try socket.stream.setReceiveTimeout(SnapshotLane.idleTime)
    }

    func begin() throws(SystemError) {
        try threads.add(self)
    }

    func serve(mayWait: Bool) {
        let isIdle = service.withLock { service in
            guard !service.hasEnded else { return false }
            service.hasEnded = !answer(&service.rest, mayWait)
            return !service.hasEnded
        }
        if isIdle { threads.wait(for: .bytes, on: self) } else { threads.remove(self) }
    }

    /// Answers requests until the lane is idle or has ended.
    ///
    /// - Returns: whether the lane is idle.
    private func answer(_ rest: inout [UInt8], _ mayWait: Bool) -> Bool {
        do {
            var requests = RequestService(socket, memory: memory, polling: polling)
            rest = try requests.run(continuing: rest, mayWait: mayWait) {}
            return true
        } catch let error as FileChanged {
            // The lane stays open until the destination has been sent the reason: a destination whose lane breaks
            // reconnects.
            onEvent(.fileChanged(error))
        } catch {
            onEvent(.laneLost(lane, reason: "\(error)"))
            socket.stream.shutdown()
        }
        return false
    }

    /// Makes the thread that serves the lane return.
    func shutdown() {
        socket.stream.shutdown()
    }

    /// Ends the lane after ``shutdown()``, and waits for the thread that serves the lane.
    func end() {
        threads.remove(self)
        service.withLock { $0.hasEnded = true }
    }
}
