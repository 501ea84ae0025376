/// Why bytes are not a record, or why a working set does not fit a memory, in one line.
package struct WorkingSetError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What failed, on what, and why.
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}
