public import LinuxSystem
public import PageProtocol
import Synchronization

/// Answers one destination's requests for pages of a file, on every lane, and sends nothing else.
public final class SnapshotAgent: Sendable {
    /// What the agent tells, each from a thread of its own.
    public enum Event: Sendable {
        /// A lane broke, or its peer broke the protocol. The agent serves nothing more on it.
        case laneLost(Lane, reason: String)
        /// The file is not what was opened: nothing more of it may be sent to anybody.
        case fileChanged(FileChanged)
    }

    /// What the agent has sent so far.
    public struct Progress: Hashable, Sendable {
        /// Requests answered.
        public var requests = 0
        /// Pages sent, zero pages among them; one that was asked for twice counts twice.
        public var pages = 0
        /// Those of them that were sent as zeros, without bytes.
        public var zeroPages = 0
        /// Bytes of pages sent.
        public var bytes = 0
    }

    private struct Lanes {
        var sockets: [SharedSocket] = []
        var isDetached = false
    }

    private let memory: SnapshotMemory
    private let onEvent: @Sendable (Event) -> Void
    private let lanes = Mutex(Lanes())
    private let threads = ThreadGroup()

    /// Makes an agent for slices that lie in a file; requests name them by their index.
    ///
    /// - Parameter onEvent: called from the agent's threads; must not block.
    public init(
        file: MappedFile,
        slices: [SnapshotSlice],
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(ProtocolError) {
        memory = try SnapshotMemory(file: file, slices: slices)
        self.onEvent = onEvent
    }

    /// Starts to answer on a lane, by a thread of its own. What is asked on the bulk lane waits for what is urgent.
    public func attach(_ socket: SharedSocket, as lane: Lane) throws(SystemError) {
        let isDetached = lanes.withLock { lanes in
            lanes.sockets.append(socket)
            return lanes.isDetached
        }
        guard !isDetached else { return }
        let (name, pace): (String, JoinedThread.Pace) =
            switch lane {
            case .urgent: ("urgent-serve", .urgent)
            case .bulk: ("bulk-serve", .background)
            }
        try threads.run(name, pace: pace) { [memory, onEvent] in
            do {
                var service = RequestService(socket, memory: memory)
                try service.run {}
            } catch let error as FileChanged {
                onEvent(.fileChanged(error))
            } catch {
                onEvent(.laneLost(lane, reason: "\(error)"))
            }
            socket.stream.shutdown()
        }
    }

    /// Ends the lanes and waits for their threads.
    public func detach() {
        let sockets = lanes.withLock { lanes in
            lanes.isDetached = true
            return lanes.sockets
        }
        for socket in sockets { socket.stream.shutdown() }
        threads.join()
    }

    /// What has been sent so far.
    public var progress: Progress {
        Progress(
            requests: memory.requests.load(ordering: .relaxed),
            pages: memory.pagesSent.load(ordering: .relaxed),
            zeroPages: memory.zeroPages.load(ordering: .relaxed),
            bytes: memory.bytesSent.load(ordering: .relaxed)
        )
    }
}
