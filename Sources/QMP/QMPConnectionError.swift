public import LinuxSystem

/// A connection that could not be made, or ended: not the answer of a command.
public struct QMPConnectionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What could not be done.
    public enum Operation: String, Sendable, Hashable {
        /// A server was to be set up.
        case listen = "cannot listen on"
        /// A client was to be connected and to negotiate.
        case connect = "cannot connect to"
        /// A connection that stood has ended.
        case talk = "lost the connection to"
    }

    /// What could not be done.
    public let operation: Operation
    /// With whom.
    public let address: SocketAddress
    /// Why.
    public let reason: String

    /// An error.
    public init(_ operation: Operation, _ address: SocketAddress, reason: String) {
        self.operation = operation
        self.address = address
        self.reason = reason
    }

    /// One line: what failed, on what, why.
    public var description: String { "\(operation.rawValue) \(address): \(reason)" }
}
