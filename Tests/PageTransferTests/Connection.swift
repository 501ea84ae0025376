import LinuxSystem

/// The lanes of one connection, over loopback.
struct Connection {
    let source: Side
    let destination: Side

    /// The ends of the lanes on one side.
    struct Side {
        var urgent: [SharedSocket] = []
        var bulks: [SharedSocket] = []
        /// The first bulk lane.
        var bulk: SharedSocket { bulks[0] }
    }

    init(urgentLanes: Int = 1, bulkLanes: Int = 1) throws {
        var (source, destination) = (Side(), Side())
        for _ in 0..<urgentLanes {
            let (one, other) = try Connection.pair()
            source.urgent.append(one)
            destination.urgent.append(other)
        }
        for _ in 0..<bulkLanes {
            let (one, other) = try Connection.pair()
            source.bulks.append(one)
            destination.bulks.append(other)
        }
        (self.source, self.destination) = (source, destination)
    }

    private static func pair() throws -> (SharedSocket, SharedSocket) {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let one = SharedSocket(try StreamSocket(connectingTo: listener.address))
        return (one, try accept(from: listener))
    }

    static func accept(from listener: borrowing Listener) throws -> SharedSocket {
        guard let socket = try listener.accept() else { throw Missing(what: "a connection") }
        return SharedSocket(socket)
    }
}

/// The error of a test that did not get what it needs.
struct Missing: Error {
    let what: String
}
