/// Why a microVM cannot be moved, in one line for a person.
public struct MicroVMError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, and what to do about it where that is known.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}
