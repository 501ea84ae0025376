/// Why a microVM cannot be moved, in one line for a person.
package struct MicroVMError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong and, if there is a remedy, what to do.
    package let description: String

    init(_ description: String) {
        self.description = description
    }
}
