/// Why a guest cannot be made or run, in one line for a person.
public struct KVMGuestError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, and what to do about it where that is known.
    public let description: String

    /// Makes an error out of its text.
    public init(_ description: String) {
        self.description = description
    }
}
