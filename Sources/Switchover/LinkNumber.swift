/// Names one attempt to make a migration's control link, and everything that belongs to that link.
///
/// Each side numbers its own links: the first is 1, and a later one has a higher number. A driver keeps the number with
/// everything that it starts for a link, and counts an event only if that link is still the one in use: a connection that
/// is made late, or a lane that ends late, says nothing of the link after it.
public struct LinkNumber: Hashable, Sendable {
    /// Counts from 1.
    public let value: Int

    /// Wraps a number.
    public init(_ value: Int) {
        self.value = value
    }

    /// The number of the attempt after this one.
    public var next: LinkNumber { LinkNumber(value + 1) }
}
