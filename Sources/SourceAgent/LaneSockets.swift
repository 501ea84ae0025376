import LinuxSystem

/// The urgent and bulk connections to one destination.
final class LaneSockets: Sendable {
    let urgent: StreamSocket
    let bulk: StreamSocket

    init(urgent: consuming StreamSocket, bulk: consuming StreamSocket) {
        self.urgent = urgent
        self.bulk = bulk
    }

    func shutdown() {
        urgent.shutdown()
        bulk.shutdown()
    }
}
