/// The number of one attempt to make a migration's control link.
///
/// Each side numbers its own links from 1 upwards. A driver keeps the number with everything that it starts for a link,
/// and ignores the events of all links but the current one. So a connection that is made late, or a lane that ends
/// late, does not affect the next link.
package struct LinkNumber: Hashable, Sendable {
    /// The number, from 1.
    package let value: Int

    /// Wraps a number.
    package init(_ value: Int) {
        self.value = value
    }

    /// The number of the next attempt.
    package var next: LinkNumber { LinkNumber(value + 1) }
}
