import LinuxSystem

/// The urgent and bulk connections to one destination, which are shut down together.
final class DestinationLanes: Sendable {
    let urgent: [SharedSocket]
    let bulk: [SharedSocket]

    init(urgent: [SharedSocket], bulk: [SharedSocket]) {
        self.urgent = urgent
        self.bulk = bulk
    }

    func shutdown() {
        for socket in urgent + bulk { socket.stream.shutdown() }
    }
}
