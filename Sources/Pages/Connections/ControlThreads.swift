package import LinuxSystem
import Synchronization

/// The threads of control connections: one reads messages, and one writes them.
///
/// Neither of them waits for a single connection, so that two threads serve any number of connections.
package final class ControlThreads: Sendable {
    /// The names of the two threads, as `top -H` shows them.
    package static let threadNames = [readingThread, writingThread]
    private static let readingThread = "control-read"
    private static let writingThread = "control-write"

    private struct State {
        var connections: [ObjectIdentifier: ControlConnection] = [:]
        /// The connections that have frames to send.
        var unsent: [ControlConnection] = []
        var isStopped = false
    }

    /// The thread that reads.
    let reading: ConnectionThreads
    private let interval: Duration
    private let state = Mutex(State())
    /// Raised when there are frames to send, and for the end.
    private let flag: EventDescriptor
    private let writing = Mutex<JoinedThread?>(nil)

    /// Starts the threads.
    ///
    /// - Parameter peerTimeout: the longest silence of a peer. A PING is sent each second, or four times within
    ///   `peerTimeout` if that is shorter.
    package init(peerTimeout: Duration) throws(SystemError) {
        interval = Self.interval(peerTimeout)
        flag = try EventDescriptor()
        reading = try ConnectionThreads(name: Self.readingThread, pace: .urgent, isGrowing: false)
        var thread: JoinedThread?
        do throws(SystemError) {
            thread = try JoinedThread(name: Self.writingThread, pace: .urgent) { [self] in write() }
        } catch {
            reading.stop()
            throw error
        }
        writing.withLock { swap(&thread, &$0) }
    }

    /// The time between two PINGs: at least four fit into the longest silence.
    static func interval(_ peerTimeout: Duration) -> Duration { min(.seconds(1), peerTimeout / 4) }

    /// Ends the threads, and waits for them; every connection must have been finished.
    package func stop() {
        state.withLock { $0.isStopped = true }
        flag.raise()
        var thread: JoinedThread?
        writing.withLock { swap(&thread, &$0) }
        thread = nil
        reading.stop()
    }

    func add(_ connection: ControlConnection) throws(SystemError) {
        state.withLock { $0.connections[ObjectIdentifier(connection)] = connection }
        do throws(SystemError) {
            try reading.add(connection)
        } catch {
            remove(connection)
            throw error
        }
    }

    /// Removes a connection, on which nothing is sent afterwards.
    func remove(_ connection: ControlConnection) {
        state.withLock { $0.connections[ObjectIdentifier(connection)] = nil }
    }

    /// Lets the writing thread send the frames of a connection.
    func send(for connection: ControlConnection) {
        state.withLock { $0.unsent.append(connection) }
        flag.raise()
    }

    private func write() {
        var pinged = MonotonicClock.now()
        while true {
            let rest = max(.zero, interval - MonotonicClock.time(since: pinged))
            if flag.wait(seconds: rest / .seconds(1)) { flag.clear() }
            let (unsent, isStopped) = state.withLock { state in
                defer { state.unsent = [] }
                return (state.unsent, state.isStopped)
            }
            for connection in unsent { connection.sendQueued() }
            if isStopped { return }
            guard MonotonicClock.time(since: pinged) >= interval else { continue }
            pinged = MonotonicClock.now()
            for connection in state.withLock({ Array($0.connections.values) }) { connection.checkPulse() }
        }
    }
}
