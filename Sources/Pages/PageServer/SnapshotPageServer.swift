package import LinuxSystem
package import PageProtocol
import Synchronization

/// Answers one destination's requests for pages of a snapshot file on every lane, and pushes nothing.
package final class SnapshotPageServer: Sendable {
    /// An event of the agent, delivered from one of its threads.
    package enum Event: Sendable {
        /// A lane broke, or the peer broke the protocol on it; the agent serves that lane no longer.
        case laneLost(Lane, reason: String)
        /// The file changed after it was opened; no destination may get more of it.
        case fileChanged(FileChanged)
    }

    /// The amounts that the agent has sent so far.
    package struct Progress: Hashable, Sendable {
        /// Requests answered.
        package var requests = 0
        /// Pages sent, including zero pages; a page that was requested twice counts twice.
        package var pages = 0
        /// The pages among ``pages`` that were sent as zeros, without bytes.
        package var zeroPages = 0
        /// Bytes of pages sent.
        package var bytes = 0
    }

    private struct Lanes {
        var sockets: [SharedSocket] = []
        var isDetached = false
    }

    private let memory: SnapshotMemory
    private let onEvent: @Sendable (Event) -> Void
    private let lanes = Mutex(Lanes())
    private let threads = ThreadGroup()

    /// Makes an agent for slices of a file, which requests name by their index.
    ///
    /// - Parameters:
    ///   - file: the file.
    ///   - slices: ranges that lie in the file.
    ///   - renew: called when the file has got new times, from one of the agent's threads, which then waits; throws
    ///     unless the content is proved to be the same.
    ///   - onEvent: called from the agent's threads; must not block.
    /// - Throws: an error if the slices are not valid regions.
    package init(
        file: MappedFile,
        slices: [SnapshotSlice],
        renew: @escaping @Sendable () throws(FileChanged) -> Void,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(ProtocolError) {
        memory = try SnapshotMemory(file: file, slices: slices, renew: renew)
        self.onEvent = onEvent
    }

    /// Starts a thread that answers requests on a lane.
    ///
    /// The thread of the bulk lane runs in the background, so that its requests wait for urgent ones.
    package func attach(_ socket: SharedSocket, as lane: Lane) throws(SystemError) {
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
                // The lane stays open until the destination has been sent the reason: a destination whose lane breaks
                // reconnects.
                return onEvent(.fileChanged(error))
            } catch {
                onEvent(.laneLost(lane, reason: "\(error)"))
            }
            socket.stream.shutdown()
        }
    }

    /// Ends the lanes and waits for their threads.
    package func detach() {
        let sockets = lanes.withLock { lanes in
            lanes.isDetached = true
            return lanes.sockets
        }
        for socket in sockets { socket.stream.shutdown() }
        threads.join()
    }

    /// The amounts sent so far.
    package var progress: Progress {
        Progress(
            requests: memory.requests.load(ordering: .relaxed),
            pages: memory.pagesSent.load(ordering: .relaxed),
            zeroPages: memory.zeroPages.load(ordering: .relaxed),
            bytes: memory.bytesSent.load(ordering: .relaxed)
        )
    }
}
