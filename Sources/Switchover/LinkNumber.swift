/// Names one attempt to make a migration's control link, and everything that belongs to that link.
///
/// The machine that dials draws the numbers, the first is 1, and a later attempt has a higher one. A driver keeps the
/// number with everything that it starts for a link, and hands an event to the machine only if the machine's `link` is
/// that number still: a connection that is made late, or a lane that ends late, says nothing of the link after it.
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
