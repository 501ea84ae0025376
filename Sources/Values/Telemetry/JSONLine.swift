import Foundation

/// The form of every JSON object that Pageferry prints: one line, with its keys in alphabetical order.
package enum JSONLine {
    /// Encodes a value as one line.
    ///
    /// - Throws: `EncodingError` if the value has no JSON form, such as a number that is not finite.
    package static func encode(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}
