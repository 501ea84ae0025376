/// What Firecracker did not do, told to a person.
public struct FirecrackerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What was asked for: `pause the microVM`.
    public let action: String
    /// The API socket that it was asked at.
    public let socketPath: String
    /// The HTTP status of a refusal; nil where no whole answer came.
    public let status: Int?
    /// Whether the request may have come to Firecracker.
    public let wasSent: Bool
    /// Why: Firecracker's fault message, or what became of the connection.
    public let reason: String

    /// One line: `cannot pause the microVM at /run/vm.sock: 400 Bad Request: …`.
    public var description: String { "cannot \(action) at \(socketPath): \(reason)" }
}
