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

        /// Makes amounts of zero.
        package init() {}
    }

    private struct Lanes {
        var attached: [SnapshotLane] = []
        var isDetached = false
    }

    private let memory: SnapshotMemory
    private let threads: SnapshotThreads
    private let onEvent: @Sendable (Event) -> Void
    private let lanes = Mutex(Lanes())

    /// Makes an agent for slices of a file, which requests name by their index.
    ///
    /// - Parameters:
    ///   - file: the file.
    ///   - slices: ranges that lie in the file.
    ///   - threads: the threads that serve the lanes, which many agents share.
    ///   - renew: called when the file has got new times, from one of the agent's threads, which then waits; throws
    ///     unless the content is proved to be the same.
    ///   - onEvent: called from the agent's threads; must not block.
    /// - Throws: an error if the slices are not valid regions.
    package init(
        file: MappedFile,
        slices: [SnapshotSlice],
        threads: SnapshotThreads,
        renew: @escaping @Sendable () throws(FileChanged) -> Void,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(ProtocolError) {
        memory = try SnapshotMemory(file: file, slices: slices, renew: renew)
        self.threads = threads
        self.onEvent = onEvent
    }

    /// Answers requests on a lane from now on.
    package func attach(_ socket: SharedSocket, as lane: Lane) throws(SystemError) {
        let lane = try SnapshotLane(
            socket,
            lane,
            memory: memory,
            threads: threads.of(lane),
            polling: threads.polling(of: lane),
            onEvent: onEvent
        )
        try lanes.withLock { (lanes) throws(SystemError) in
            guard !lanes.isDetached else { return }
            try lane.begin()
            lanes.attached.append(lane)
        }
    }

    /// Ends the lanes, and waits for the threads that serve them.
    package func detach() {
        let attached = lanes.withLock { lanes in
            lanes.isDetached = true
            defer { lanes.attached = [] }
            return lanes.attached
        }
        for lane in attached { lane.shutdown() }
        for lane in attached { lane.end() }
    }

    /// The amounts sent so far.
    package var progress: Progress {
        var progress = Progress()
        progress.requests = memory.requests.load(ordering: .relaxed)
        progress.pages = memory.pagesSent.load(ordering: .relaxed)
        progress.zeroPages = memory.zeroPages.load(ordering: .relaxed)
        progress.bytes = memory.bytesSent.load(ordering: .relaxed)
        return progress
    }
}
