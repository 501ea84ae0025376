package import LinuxSystem
import Synchronization

/// The threads of control connections: one reads messages, and one sends PINGs and notices silent peers.
///
/// The thread that has a message sends it. The reading thread sends what is left once the socket has room. Neither of
/// the two threads waits for a single connection, so that two threads serve any number of connections.
package final class ControlThreads: Sendable {
    /// The names of the two threads, as `top -H` shows them.
    package static let threadNames = [readingThread, pulseThread]
    private static let readingThread = "control-read"
    private static let pulseThread = "control-pulse"

    /// The thread that reads.
    let reading: ConnectionThreads
    private let interval: Duration
    private let connections = Mutex<[ObjectIdentifier: ControlConnection]>([:])
    /// Raised for the end.
    private let flag: EventDescriptor
    private let pulse = Mutex<JoinedThread?>(nil)

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
            thread = try JoinedThread(name: Self.pulseThread) { [self] in checkPulses() }
        } catch {
            reading.stop()
            throw error
        }
        pulse.withLock { swap(&thread, &$0) }
    }

    /// The time between two PINGs: at least four fit into the longest silence.
    static func interval(_ peerTimeout: Duration) -> Duration { min(.seconds(1), peerTimeout / 4) }

    /// Ends the threads, and waits for them; every connection must have been finished.
    package func stop() {
        flag.raise()
        var thread: JoinedThread?
        pulse.withLock { swap(&thread, &$0) }
        thread = nil
        reading.stop()
    }

    func add(_ connection: ControlConnection) throws(SystemError) {
        connections.withLock { $0[ObjectIdentifier(connection)] = connection }
        do throws(SystemError) {
            try reading.add(connection)
        } catch {
            remove(connection)
            throw error
        }
    }

    /// Removes a connection, on which nothing is sent afterwards.
    func remove(_ connection: ControlConnection) {
        connections.withLock { $0[ObjectIdentifier(connection)] = nil }
    }

    private func checkPulses() {
        while !flag.wait(seconds: interval / .seconds(1)) {
            for connection in connections.withLock({ Array($0.values) }) { connection.checkPulse() }
        }
    }
}
