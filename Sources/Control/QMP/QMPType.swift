/// The type of an argument, a result or a member, as `query-qmp-schema` describes it to clients.
package indirect enum QMPType: Sendable, Hashable {
    case string
    /// A whole number.
    case integer
    /// Any number.
    case number
    case boolean
    case null
    /// Any JSON value.
    case any
    case array(QMPType)
    /// One of these strings.
    case words([String])
    case object([QMPMember])
    /// A value of any of these types.
    case either([QMPType])

    /// An object without members, the result of a command that has nothing to report.
    package static let nothing = QMPType.object([])
}

/// A named part of an object, or an argument of a command.
package struct QMPMember: Sendable, Hashable {
    /// The name on the wire.
    package let name: String
    /// The type of the member's value.
    package let type: QMPType
    /// Whether the member may be left out.
    package let isOptional: Bool

    /// A member that is always there.
    package static func required(_ name: String, _ type: QMPType) -> QMPMember {
        QMPMember(name: name, type: type, isOptional: false)
    }

    /// A member that may be left out.
    package static func optional(_ name: String, _ type: QMPType) -> QMPMember {
        QMPMember(name: name, type: type, isOptional: true)
    }
}

extension QMPType {
    /// Whether a value is of this type, including everything inside the value.
    package func includes(_ value: JSONValue) -> Bool {
        switch (self, value) {
        case (.any, _), (.string, .string), (.integer, .integer), (.number, .integer), (.number, .double),
            (.integer, .unsigned), (.number, .unsigned), (.boolean, .boolean), (.null, .null):
            true
        case (.words(let words), .string(let word)): words.contains(word)
        case (.array(let element), .array(let elements)): elements.allSatisfy(element.includes)
        case (.object(let members), .object(let values)):
            values.keys.allSatisfy { name in members.contains { $0.name == name } }
                && members.allSatisfy { member in values[member.name].map(member.type.includes) ?? member.isOptional }
        case (.either(let types), _): types.contains { $0.includes(value) }
        case (.string, _), (.integer, _), (.number, _), (.boolean, _), (.null, _), (.words, _), (.array, _),
            (.object, _):
            false
        }
    }

    /// The expected kind in the words of an error message; nil if the value is of that kind.
    ///
    /// What is inside the value does not matter.
    func kindExpected(insteadOf value: JSONValue) -> String? {
        switch (self, value) {
        case (.any, _), (.string, .string), (.words, .string), (.integer, .integer), (.number, .integer),
            (.number, .double), (.number, .unsigned), (.boolean, .boolean), (.null, .null), (.array, .array),
            (.object, .object):
            nil
        case (.string, _), (.words, _): "string"
        case (.integer, _): "integer"
        case (.number, _): "number"
        case (.boolean, _): "boolean"
        case (.null, _): "null"
        case (.array, _): "array"
        case (.object, _): "object"
        case (.either(let types), _):
            types.contains { $0.kindExpected(insteadOf: value) == nil }
                ? nil : types.first?.kindExpected(insteadOf: value) ?? "nothing"
        }
    }
}
