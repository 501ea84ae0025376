/// A request to Firecracker that failed.
package struct FirecrackerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The request, in words: `pause the microVM`.
    package let action: String
    /// The API socket that the request was for.
    package let socketPath: String
    /// The HTTP status of a refusal; nil if no whole answer arrived.
    package let status: Int?
    /// Whether the request may have reached Firecracker, which then may have carried it out.
    package let wasSent: Bool
    /// The status and Firecracker's fault message, or the failure of the connection.
    package let reason: String

    /// The error in one line: `cannot pause the microVM at /run/vm.sock: 400 Bad Request: …`.
    package var description: String { "cannot \(action) at \(socketPath): \(reason)" }
}
