import LinuxSystem
import NIOCore
import Synchronization

/// The connections of a server, of which there are not too many.
final class WebConnections: Sendable {
    /// The state that only the event loop touches.
    private struct State {
        var guards: [ObjectIdentifier: ConnectionGuard] = [:]
        var isClosed = false
    }

    private let state: NIOLoopBoundBox<State>
    private let limit: Int
    private let number = Atomic<Int>(0)
    private let streams = Atomic<Int>(0)

    init(limit: Int, on loop: any EventLoop) {
        self.limit = limit
        state = .makeBoxSendingValue(State(), eventLoop: loop)
    }

    /// The number of connections.
    var count: Int { number.load(ordering: .relaxed) }

    /// The number of event streams.
    var eventStreams: Int { streams.load(ordering: .relaxed) }

    /// Counts event streams that have begun, or ended if negative.
    func addEventStreams(_ count: Int) { streams.add(count, ordering: .relaxed) }

    /// Makes room for another connection, by closing the one that has asked for nothing for the longest time.
    ///
    /// - Returns: false if there is no room.
    func makeRoom() -> Bool {
        guard !state.value.isClosed else { return false }
        guard state.value.guards.count >= limit else { return true }
        let idle = state.value.guards.values.filter { !$0.isBusy }
        guard let oldest = idle.min(by: { $0.idleSince < $1.idleSince }) else { return false }
        remove(oldest)
        oldest.close()
        return true
    }

    func add(_ connection: ConnectionGuard) {
        state.value.guards[ObjectIdentifier(connection)] = connection
        number.store(state.value.guards.count, ordering: .relaxed)
    }

    func remove(_ connection: ConnectionGuard) {
        state.value.guards[ObjectIdentifier(connection)] = nil
        number.store(state.value.guards.count, ordering: .relaxed)
    }

    /// Closes all connections at once, and accepts no more.
    func closeAll() {
        state.value.isClosed = true
        for connection in state.value.guards.values { connection.close() }
    }
}
