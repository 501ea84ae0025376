/// Why a workload cannot be made, in one line for a person.
public struct WorkloadError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, and what to do about it where that is known.
    public let description: String

    /// Makes an error out of its text.
    public init(_ description: String) {
        self.description = description
    }
}
