/// The secret that a client of the live page must know to act.
package struct WebToken: Sendable {
    /// The lengths of a token, in bytes.
    private static let lengths = 16...512
    private let bytes: [UInt8]

    /// Makes a token of a text; nil if it is too short or too long, or has other characters than those of ASCII that
    /// are visible.
    package init?(_ text: String) {
        guard WebToken.lengths.contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            return nil
        }
        bytes = Array(text.utf8)
    }

    /// Whether a client's text is the token; takes as long for a wrong text as for the right one of that length.
    func matches(_ text: String) -> Bool {
        let other = Array(text.utf8)
        var difference = other.count ^ bytes.count
        // The length of a wrong text is the client's own, so the time tells nothing about the token.
        for (index, byte) in other.enumerated() { difference |= Int(byte ^ bytes[index % bytes.count]) }
        return difference == 0
    }
}
