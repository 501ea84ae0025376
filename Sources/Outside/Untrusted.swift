/// A whole number that came from outside of this process: from a peer, a file, a device's state, another program.
///
/// No arithmetic on it traps. A result that `Number` cannot hold is remembered as such, through every further step, and
/// ``within(_:)``, which alone gives a plain number, then gives nil. Sums and products are written as usual, and checked
/// once, at the end:
///
///     guard let end = (Untrusted(offset) + Untrusted(pageSize) * Untrusted(pageCount)).within(0...most) else { … }
public struct Untrusted<Number: FixedWidthInteger & Sendable>: Hashable, Sendable {
    /// Nil after a step whose result `Number` cannot hold.
    private let number: Number?

    private init(holding number: Number?) {
        self.number = number
    }

    /// A number as it came.
    public init(_ number: Number) {
        self.number = number
    }

    /// A number of another type, which `Number` may not be able to hold.
    public init(converting number: some BinaryInteger) {
        self.number = Number(exactly: number)
    }

    /// A number that may have a fraction, which is dropped; one that is not finite is out of every bounds.
    public init(truncating number: Double) {
        self.number = Number(exactly: number.rounded(.towardZero))
    }

    /// The number, if it lies in the bounds and so does every number on the way to it in `Number`.
    public func within(_ bounds: ClosedRange<Number>) -> Number? {
        guard let number, bounds.contains(number) else { return nil }
        return number
    }

    /// The bound that lies nearest: of a number that `Number` cannot hold, the upper one.
    public func clamped(to bounds: ClosedRange<Number>) -> Number {
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
    public static func + (one: Self, other: Self) -> Self { step(one, other, Number.addingReportingOverflow) }

    /// The difference.
    public static func - (one: Self, other: Self) -> Self { step(one, other, Number.subtractingReportingOverflow) }

    /// The product.
    public static func * (one: Self, other: Self) -> Self {
        step(one, other, Number.multipliedReportingOverflow(by:))
    }

    /// The quotient without its rest; a division by zero is out of every bounds.
    public static func / (one: Self, other: Self) -> Self { step(one, other, Number.dividedReportingOverflow(by:)) }

    /// Adds to it.
    public static func += (one: inout Self, other: Self) { one = one + other }
}

extension Untrusted: ExpressibleByIntegerLiteral {
    /// A number that stands in the source code.
    public init(integerLiteral number: Number.IntegerLiteralType) {
        self.init(Number(integerLiteral: number))
    }
}

extension Untrusted: CustomStringConvertible {
    /// The number in digits, for errors.
    public var description: String { number.map { "\($0)" } ?? "a number beyond \(Number.bitWidth) bits" }
}
