/// The name of one RUN.
///
/// The source draws a fresh token for each RUN. A promise that a token never starts holds for good.
package struct RunToken: Hashable, Sendable {
    /// The absence of a RUN, which CANCEL names if none was sent.
    package static let none = RunToken(0)

    /// The token's bits, drawn by the source; never 0 in a RUN.
    package let value: UInt64

    /// Wraps the bits of a token.
    package init(_ value: UInt64) {
        self.value = value
    }

    /// Draws a token that was never used before, from the system's random source.
    package static func random() -> RunToken {
        RunToken(UInt64.random(in: 1...UInt64.max))
    }
}

extension RunToken: ExpressibleByIntegerLiteral {
    /// Wraps the bits of a token that is written in code.
    package init(integerLiteral value: UInt64) {
        self.value = value
    }
}
