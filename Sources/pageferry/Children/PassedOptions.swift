package import ArgumentParser
import Foundation

/// Options as one value: a parent writes the value, and its child reads it.
///
/// Every property passes to the child, so a new option needs only its declaration.
enum PassedOptions {
    /// Writes options as one line of JSON.
    static func json(_ options: some ParsableArguments & Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(options), as: UTF8.self)
    }

    /// Reads what ``json(_:)`` has written.
    static func read<Options: ParsableArguments>(_ type: Options.Type, from json: String) throws -> Options {
        try JSONDecoder().decode(Whole<Options>.self, from: Data(json.utf8)).options
    }

    private struct Whole<Options: ParsableArguments>: Decodable {
        let options: Options

        init(from decoder: any Decoder) throws {
            options = try Options(from: OptionDecoder(base: decoder))
        }
    }
}

extension Option: @retroactive Encodable where Value: Encodable {
    /// Writes the value.
    package func encode(to encoder: any Encoder) throws { try wrappedValue.encode(to: encoder) }
}

extension Flag: @retroactive Encodable where Value: Encodable {
    /// Writes the value.
    package func encode(to encoder: any Encoder) throws { try wrappedValue.encode(to: encoder) }
}

extension OptionGroup: @retroactive Encodable where Value: Encodable {
    /// Writes the options of the group.
    package func encode(to encoder: any Encoder) throws { try wrappedValue.encode(to: encoder) }
}

/// A property wrapper of the parser, made from a value that was decoded.
private protocol PassedProperty {
    init(passed decoder: any Decoder) throws
}

extension Option: PassedProperty where Value: Decodable {
    fileprivate init(passed decoder: any Decoder) throws {
        self.init(value: try Value(from: decoder))
    }
}

extension Option {
    fileprivate init(value: Value) {
        self.init(wrappedValue: value, transform: { throw ValidationError("'\($0)' is not parsed") })
        // Until a value is set, the wrapper is only the definition of an option.
        wrappedValue = value
    }
}

extension Flag: PassedProperty where Value: FlagValue & Decodable {
    fileprivate init(passed decoder: any Decoder) throws {
        self = Value.flag
        wrappedValue = try Value(from: decoder)
    }
}

extension OptionGroup: PassedProperty {
    fileprivate init(passed decoder: any Decoder) throws {
        self.init()
        wrappedValue = try Value(from: OptionDecoder(base: decoder))
    }
}

/// The value of a flag.
private protocol FlagValue {
    static var flag: Flag<Self> { get }
}

extension Bool: FlagValue {
    fileprivate static var flag: Flag<Bool> { Flag(wrappedValue: false) }
}

extension Bool?: FlagValue {
    fileprivate static var flag: Flag<Bool?> { Flag(inversion: .prefixedNo) }
}

/// A decoder of options.
///
/// The parser's property wrappers decode only what the parser has parsed. This decoder makes each wrapper from its
/// value, and leaves everything else to another decoder.
private struct OptionDecoder: Decoder {
    let base: any Decoder

    var codingPath: [any CodingKey] { base.codingPath }
    var userInfo: [CodingUserInfoKey: Any] { base.userInfo }

    func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
        KeyedDecodingContainer(Container(base: try base.container(keyedBy: type)))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer { try base.unkeyedContainer() }

    func singleValueContainer() throws -> any SingleValueDecodingContainer { try base.singleValueContainer() }

    struct Container<Key: CodingKey>: KeyedDecodingContainerProtocol {
        let base: KeyedDecodingContainer<Key>

        var codingPath: [any CodingKey] { base.codingPath }
        var allKeys: [Key] { base.allKeys }

        func contains(_ key: Key) -> Bool { base.contains(key) }

        func decodeNil(forKey key: Key) throws -> Bool { try base.decodeNil(forKey: key) }

        func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
            guard let property = type as? any PassedProperty.Type,
                let value = try property.init(passed: base.superDecoder(forKey: key)) as? Value
            else { return try base.decode(type, forKey: key) }
            return value
        }

        func nestedContainer<NestedKey: CodingKey>(
            keyedBy type: NestedKey.Type,
            forKey key: Key
        ) throws -> KeyedDecodingContainer<NestedKey> {
            try base.nestedContainer(keyedBy: type, forKey: key)
        }

        func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
            try base.nestedUnkeyedContainer(forKey: key)
        }

        func superDecoder() throws -> any Decoder { try base.superDecoder() }

        func superDecoder(forKey key: Key) throws -> any Decoder { try base.superDecoder(forKey: key) }
    }
}

/// An option's value that passes to a child as the text that a command line has.
protocol CodableAsText: Codable, CustomStringConvertible {
    /// Reads the text form; nil if the text is not of that form.
    init?(argument: String)
}

extension CodableAsText {
    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = Self(argument: text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "'\(text)' is no \(Self.self)")
        }
        self = value
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
