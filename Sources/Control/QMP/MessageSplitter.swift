/// Finds where each JSON text of a byte stream begins and ends.
///
/// QMP texts need no separator and may arrive in any pieces, and an unreadable text must not make the next one
/// unreadable. The splitter follows only brackets and strings; ``JSONReader`` decides whether a text is JSON.
struct MessageSplitter {
    /// The next part of the stream.
    enum Piece: Equatable {
        /// One whole text.
        case message([UInt8])
        /// Bytes that cannot belong to a text; reading continues after them.
        case malformed(String)
        /// A text longer than the bound; the rest of the stream cannot be read.
        case tooLong
    }

    private enum Place: Hashable {
        /// Before a text. → structure, word, recovering
        case between
        /// Within brackets and outside strings, or after the last bracket. → string, between, recovering
        case structure
        /// Within a string. → escape, structure, recovering
        case string
        /// After a backslash in a string. → string, recovering
        case escape
        /// Within a text that no bracket delimits, such as `true`. → recovering
        case word
        /// After bytes that are not an object: skips to the end of the line or the next object. → between
        case recovering
    }

    private let maximumBytes: Int
    private var place = Place.between
    private var text: [UInt8] = []
    /// The closing bytes of the open brackets, innermost last.
    private var closers: [UInt8] = []

    /// - Parameter maximumBytes: the longest text that is accepted.
    init(maximumBytes: Int) {
        self.maximumBytes = maximumBytes
    }

    /// Removes the next piece from the input; nil if the input ends before the piece does.
    mutating func next(from input: inout ArraySlice<UInt8>) -> Piece? {
        var consumed = 0
        var piece: Piece?
        input.withUnsafeBufferPointer { bytes in
            while piece == nil, consumed < bytes.count {
                let (taken, found) = step(bytes[consumed])
                if taken { consumed += 1 }
                piece = found
            }
        }
        input = consumed == input.count ? [] : input.dropFirst(consumed)
        return piece
    }

    /// Examines one byte; a byte that is not taken is examined again in the new place.
    private mutating func step(_ byte: UInt8) -> (taken: Bool, Piece?) {
        switch place {
        case .between: return begin(byte)
        case .structure: return continueStructure(byte)
        case .string, .escape: return continueString(byte)
        case .word:
            switch byte {
            case 0x00...0x20, 0x7F..., UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: "\""):
                return (false, finish(.recovering))
            default:
                return (true, append(byte))
            }
        case .recovering:
            let ends = byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "{")
            if ends { place = .between }
            return (!ends, nil)
        }
    }

    private mutating func begin(_ byte: UInt8) -> (taken: Bool, Piece?) {
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"):
            return (true, nil)
        case UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: "\""):
            place = .structure
            return (false, nil)
        case 0x00..<0x20, 0x7F..., UInt8(ascii: "}"), UInt8(ascii: "]"), UInt8(ascii: ","), UInt8(ascii: ":"):
            return (true, abandon("stray \(Self.name(of: byte))"))
        default:
            place = .word
            return (false, nil)
        }
    }

    private mutating func continueStructure(_ byte: UInt8) -> (taken: Bool, Piece?) {
        switch byte {
        case UInt8(ascii: "\""):
            place = .string
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            guard closers.count < JSONReader.maximumDepth else {
                return (true, abandon("nested deeper than \(JSONReader.maximumDepth) levels"))
            }
            // In ASCII, '}' is '{' plus 2, and ']' is '[' plus 2.
            closers.append(byte + 2)
        case UInt8(ascii: "}"), UInt8(ascii: "]"):
            guard closers.popLast() == byte else { return (true, abandon("stray \(Self.name(of: byte))")) }
            if closers.isEmpty { return (true, append(byte) ?? finish(.between)) }
        case UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"):
            break
        case 0x00..<0x20, 0x7F...:
            return (true, abandon("stray \(Self.name(of: byte))"))
        default:
            break
        }
        return (true, append(byte))
    }

    private mutating func continueString(_ byte: UInt8) -> (taken: Bool, Piece?) {
        switch byte {
        // A control character cannot be part of a string, nor can 0xFE or 0xFF, which UTF-8 never uses. A client
        // that sends one wants to begin anew.
        case 0x00..<0x20: return (false, abandon("control character in a string"))
        case 0xFE, 0xFF: return (true, abandon("stray \(Self.name(of: byte))"))
        default: break
        }
        if place == .escape {
            place = .string
        } else if byte == UInt8(ascii: "\\") {
            place = .escape
        } else if byte == UInt8(ascii: "\"") {
            place = .structure
            if closers.isEmpty { return (true, append(byte) ?? finish(.recovering)) }
        }
        return (true, append(byte))
    }

    private mutating func append(_ byte: UInt8) -> Piece? {
        guard text.count < maximumBytes else { return .tooLong }
        text.append(byte)
        return nil
    }

    private mutating func finish(_ next: Place) -> Piece {
        defer { text.removeAll(keepingCapacity: text.capacity <= 4096) }
        place = next
        return .message(text)
    }

    private mutating func abandon(_ reason: String) -> Piece {
        place = .recovering
        text = []
        closers = []
        return .malformed(reason)
    }

    private static func name(of byte: UInt8) -> String {
        (0x21...0x7E).contains(byte) ? "'\(Character(UnicodeScalar(byte)))'" : "byte 0x\(String(byte, radix: 16))"
    }
}
