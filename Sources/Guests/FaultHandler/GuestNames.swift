import Attachments
import Foundation
import Outside

/// Where the names of guests come from, by which operators know them.
package enum GuestNames: Codable, Hashable, Sendable {
    /// The file name of the socket at which a guest attaches, without `.sock`.
    case socket
    /// A text that the guest's process adds to the first region of its hand-off, under this name.
    case field(String)

    /// The most bytes of UTF-8 that are kept of a name.
    private static let most = 128

    /// Reads `socket` or the name of a member; nil if the text is neither.
    package init?(_ text: String) {
        guard text != "socket" else {
            self = .socket
            return
        }
        let isName = text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default: false
            }
        }
        guard isName, (1...64).contains(text.utf8.count) else { return nil }
        self = .field(text)
    }

    /// The name of a guest; nil if it has none.
    ///
    /// - Parameters:
    ///   - handOff: the guest's hand-off.
    ///   - socket: the address at which the guest attaches.
    func name(of handOff: FirecrackerHandOff, at socket: String) -> String? {
        let text: String
        switch self {
        case .socket:
            let file = socket.split(separator: "/").last.map { String($0) } ?? socket
            text = file.hasSuffix(".sock") ? String(file.dropLast(".sock".count)) : file
        case .field(let name): text = handOff.text(of: name) ?? ""
        }
        // The name comes from another process, and appears in the log and on the live page.
        return text.isEmpty ? nil : PrintableText.cut(PrintableText.line(text), to: GuestNames.most)
    }
}
