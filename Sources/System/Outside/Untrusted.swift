/// An integer that came from outside of this process: from a peer, a file, a device's state or another program.
///
/// Arithmetic on an untrusted number never traps. A result that `Number` cannot hold stays invalid through every
/// further operation. Only ``within(_:)`` and ``clamped(to:)`` return a plain number, and ``within(_:)`` returns nil
/// for an invalid one. Code can therefore write sums and products as usual, and check once, at the end:
///
///     guard let end = (Untrusted(offset) + Untrusted(pageSize) * Untrusted(pageCount)).within(0...most) else { … }
package struct Untrusted<Number: FixedWidthInteger & Sendable>: Hashable, Sendable {
    /// The value; nil after an operation whose result `Number` cannot hold.
    private let number: Number?

    private init(holding number: Number?) {
        self.number = number
    }

    /// Wraps a number.
    package init(_ number: Number) {
        self.number = number
    }

    /// Wraps a number of another type; a number that `Number` cannot hold is out of every bounds.
    package init(converting number: some BinaryInteger) {
        self.number = Number(exactly: number)
    }

    /// Wraps a number without its fraction; a number that is not finite is out of every bounds.
    package init(truncating number: Double) {
        self.number = Number(exactly: number.rounded(.towardZero))
    }

    /// The number if it lies in the bounds; nil if not, or if an operation on the way overflowed `Number`.
    package func within(_ bounds: ClosedRange<Number>) -> Number? {
        guard let number, bounds.contains(number) else { return nil }
        return number
    }

    /// The number moved into the bounds; the upper bound if an operation overflowed `Number`.
    package func clamped(to bounds: ClosedRange<Number>) -> Number {
        guard let number else { return bounds.upperBound }
        return min(max(number, bounds.lowerBound), bounds.upperBound)
    }

    private static func step(
        _ one: Self,
        _ other: Self,
        _ operation: (Number) -> (Number) -> (partialValue: Number, overflow: Bool)
    ) -> Self {
        guard let first = one.number, let second = other.number else { return Self(holding: nil) }
        let (result, overflow) = operation(first)(second)
        return Self(holding: overflow ? nil : result)
    }

    /// The sum.
    package static func + (one: Self, other: Self) -> Self { step(one, other, Number.addingReportingOverflow) }

    /// The difference.
    package static func - (one: Self, other: Self) -> Self { step(one, other, Number.subtractingReportingOverflow) }

    /// The product.
    package static func * (one: Self, other: Self) -> Self {
        step(one, other, Number.multipliedReportingOverflow(by:))
    }

    /// The quotient, rounded towards zero; a division by zero is out of every bounds.
    package static func / (one: Self, other: Self) -> Self { step(one, other, Number.dividedReportingOverflow(by:)) }

    /// Adds a number to this one.
    package static func += (one: inout Self, other: Self) { one = one + other }
}

extension Untrusted: ExpressibleByIntegerLiteral {
    /// Wraps a literal.
    package init(integerLiteral number: Number.IntegerLiteralType) {
        self.init(Number(integerLiteral: number))
    }
}

extension Untrusted: CustomStringConvertible {
    /// The number in decimal digits, or the fact that it overflowed, for error messages.
    package var description: String { number.map { "\($0)" } ?? "a number beyond \(Number.bitWidth) bits" }
}
