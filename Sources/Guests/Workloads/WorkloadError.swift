/// Why a workload cannot be made or started, in one line for a person.
package struct WorkloadError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong and, if there is a remedy, what to do.
    package let description: String

    /// Makes an error; the text must be one line.
    package init(_ description: String) {
        self.description = description
    }
}
