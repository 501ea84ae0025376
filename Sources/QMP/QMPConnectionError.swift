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
    /// What the reader can do about it, where that is known.
    public let advice: String?

    /// An error.
    public init(_ operation: Operation, _ address: SocketAddress, reason: String, advice: String? = nil) {
        self.operation = operation
        self.address = address
        self.reason = reason
        self.advice = advice
    }

    /// One line: what failed, on what, why, and what to do.
    public var description: String {
        let line = "\(operation.rawValue) \(address): \(reason)"
        return advice.map { "\(line); \($0)" } ?? line
    }
}
