import LinuxSystem

/// The two lanes of one connection, over loopback.
struct Connection: ~Copyable {
    let source: (urgent: Handover<StreamSocket>, bulk: Handover<StreamSocket>)
    let destination: (urgent: Handover<StreamSocket>, bulk: Handover<StreamSocket>)

    init() throws {
        let (sourceUrgent, destinationUrgent) = try Connection.pair()
        let (sourceBulk, destinationBulk) = try Connection.pair()
        source = (sourceUrgent, sourceBulk)
        destination = (destinationUrgent, destinationBulk)
    }

    private static func pair() throws -> (Handover<StreamSocket>, Handover<StreamSocket>) {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let one = Handover(try StreamSocket(connectingTo: listener.address))
        return (one, try accept(from: listener))
    }

    static func accept(from listener: borrowing Listener) throws -> Handover<StreamSocket> {
        guard let socket = try listener.accept() else { throw Missing(what: "a connection") }
        return Handover(socket)
    }
}

/// What a test needs and did not get.
struct Missing: Error {
    let what: String
}

extension Handover where Value: ~Copyable {
    /// The value, which nobody else has taken.
    func taken() throws -> Value {
        guard let value = take() else { throw Missing(what: "a value that was handed over") }
        return value
    }
}

/// A socket that threads of a test share.
final class Peer: Sendable {
    let socket: StreamSocket
    init(_ socket: consuming StreamSocket) { self.socket = socket }
}
