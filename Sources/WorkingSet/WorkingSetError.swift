/// Why bytes are no record, or why a record does not fit: one line.
public struct WorkingSetError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What failed, on what, and why.
    public let description: String

    /// Makes an error out of its line.
    public init(_ description: String) {
        self.description = description
    }
}
