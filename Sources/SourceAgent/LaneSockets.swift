import LinuxSystem

/// The urgent and bulk connections to one destination: they end together.
final class LaneSockets: Sendable {
    let urgent: [SharedSocket]
    let bulk: SharedSocket

    init(urgent: [SharedSocket], bulk: SharedSocket) {
        self.urgent = urgent
        self.bulk = bulk
    }

    func shutdown() {
        for socket in urgent { socket.stream.shutdown() }
        bulk.stream.shutdown()
    }
}
