/// A JSON value, as QMP carries it in arguments, results and event data.
///
/// Numbers without a fraction that fit `Int64` are ``integer(_:)``, larger ones that fit `UInt64` are ``unsigned(_:)``;
/// all others are ``double(_:)``.
package enum JSONValue: Sendable, Hashable {
    /// `null`.
    case null
    /// `true` or `false`.
    case boolean(Bool)
    /// A whole number that fits in 64 signed bits.
    case integer(Int64)
    /// A whole number above `Int64.max` that fits in 64 unsigned bits.
    case unsigned(UInt64)
    /// Any other number; infinity and NaN, for which JSON has no word, are written as `null`.
    case double(Double)
    /// A string.
    case string(String)
    /// An ordered list.
    case array([JSONValue])
    /// Members by name.
    case object([String: JSONValue])
}

extension JSONValue {
    /// A whole number; above `UInt64.max` or below `Int64.min` it becomes the nearest ``double(_:)``.
    package init(_ number: some BinaryInteger) {
        self =
            Int64(exactly: number).map(JSONValue.integer) ?? UInt64(exactly: number).map(JSONValue.unsigned)
            ?? .double(Double(number))
    }

    /// Whether this is `null`.
    package var isNull: Bool { self == .null }

    /// The boolean, or nil for any other kind of value.
    package var boolean: Bool? {
        guard case .boolean(let value) = self else { return nil }
        return value
    }

    /// The whole number that fits in 64 signed bits, or nil for any other kind of value.
    package var integer: Int64? {
        guard case .integer(let value) = self else { return nil }
        return value
    }

    /// The number, whole or not, or nil for any other kind of value.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .unsigned(let value): Double(value)
        case .double(let value): value
        case .null, .boolean, .string, .array, .object: nil
        }
    }

    /// The string, or nil for any other kind of value.
    package var string: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// The elements, or nil for any other kind of value.
    package var array: [JSONValue]? {
        guard case .array(let value) = self else { return nil }
        return value
    }

    /// The members, or nil for any other kind of value.
    package var object: [String: JSONValue]? {
        guard case .object(let value) = self else { return nil }
        return value
    }

    /// The member of this name, or nil if there is none or this is not an object.
    package subscript(member: String) -> JSONValue? { object?[member] }

    /// The element at this index, or nil if there is none or this is not an array.
    package subscript(index: Int) -> JSONValue? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }
}

extension JSONValue: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringLiteral, ExpressibleByStringInterpolation, ExpressibleByArrayLiteral,
    ExpressibleByDictionaryLiteral
{
    /// `nil` is `null`.
    package init(nilLiteral: ()) { self = .null }
    /// `true` or `false`.
    package init(booleanLiteral value: Bool) { self = .boolean(value) }
    /// A whole number.
    package init(integerLiteral value: Int64) { self = .integer(value) }
    /// A number with a fraction.
    package init(floatLiteral value: Double) { self = .double(value) }
    /// A string.
    package init(stringLiteral value: String) { self = .string(value) }
    /// A list.
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    /// An object; of members with the same name the last one counts.
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(Dictionary(elements) { _, last in last })
    }
}
