internal import FoundationEssentials

extension JSONValue: Codable {
    /// Reads a value of any kind.
    ///
    /// - Throws: `DecodingError` if the value is of no kind that JSON has.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        func read<Value: Decodable>(_ type: Value.Type) -> Value? {
            // The error is dropped, since another type may fit; the last type that is tried throws its error.
            try? container.decode(type)
        }
        if container.decodeNil() {
            self = .null
        } else if let value = read(String.self) {
            self = .string(value)
        } else if let value = read(Int64.self) {
            self = .integer(value)
        } else if let value = read(UInt64.self) {
            self = .unsigned(value)
        } else if let value = read(Bool.self) {
            self = .boolean(value)
        } else if let value = read(Double.self) {
            self = .double(value)
        } else if let value = read([String: JSONValue].self) {
            self = .object(value)
        } else {
            self = .array(try container.decode([JSONValue].self))
        }
    }

    /// Writes the value as itself, without a wrapper.
    ///
    /// - Throws: the error of the encoder.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .boolean(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .unsigned(let value): try container.encode(value)
        case .double(let value) where value.isFinite: try container.encode(value)
        case .double: try container.encodeNil()
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

extension JSONValue: CustomStringConvertible {
    private static let encoder: JSONEncoder = {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return encoder
    }()

    /// The JSON text on one line, members sorted by name.
    package var description: String { String(decoding: text, as: UTF8.self) }

    /// The JSON text on one line as UTF-8, members sorted by name.
    var text: [UInt8] {
        // Cannot fail: every case has a JSON form, and numbers that have none are written as null.
        (try? Self.encoder.encode(self)).map(Array.init) ?? Array("null".utf8)
    }
}
