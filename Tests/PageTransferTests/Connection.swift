import LinuxSystem

/// The lanes of one connection, over loopback.
struct Connection {
    let source: (urgent: [SharedSocket], bulk: SharedSocket)
    let destination: (urgent: [SharedSocket], bulk: SharedSocket)

    init(urgentLanes: Int = 1) throws {
        var (sourceUrgent, destinationUrgent): ([SharedSocket], [SharedSocket]) = ([], [])
        for _ in 0..<urgentLanes {
            let (one, other) = try Connection.pair()
            sourceUrgent.append(one)
            destinationUrgent.append(other)
        }
        let (sourceBulk, destinationBulk) = try Connection.pair()
        source = (sourceUrgent, sourceBulk)
        destination = (destinationUrgent, destinationBulk)
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
