package import LinuxSystem

/// The error of a connection that could not be made or was lost, as opposed to that of a command.
package struct QMPConnectionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The operation that failed.
    package enum Operation: String, Sendable, Hashable {
        /// To listen for clients.
        case listen = "cannot listen on"
        /// To connect to a server and negotiate.
        case connect = "cannot connect to"
        /// To keep an established connection.
        case talk = "lost the connection to"
        /// To understand a message of the server that is not valid QMP.
        case understand = "cannot understand"
    }

    /// The operation that failed.
    package let operation: Operation
    /// The address to listen on, or that of the server.
    package let address: SocketAddress
    /// Why the operation failed.
    package let reason: String
    /// What the reader can do about the failure, if known.
    package let advice: String?

    /// An error with the parts of its one line.
    package init(_ operation: Operation, _ address: SocketAddress, reason: String, advice: String? = nil) {
        self.operation = operation
        self.address = address
        self.reason = reason
        self.advice = advice
    }

    /// One line: what failed, on what, why, and what to do.
    package var description: String {
        let line = "\(operation.rawValue) \(address): \(reason)"
        return advice.map { "\(line); \($0)" } ?? line
    }
}
