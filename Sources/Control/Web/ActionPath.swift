import Exposition
import Foundation
import Telemetry

/// The path of an action, such as `/api/cancel` or `/api/guests/12/fill`.
enum ActionPath: Hashable {
    case cancel, recover, cont, pause
    case fill(LiveGuest.ID)
    case release(LiveGuest.ID)

    /// Reads a path; nil if it is that of no action.
    init?(_ path: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        switch Array(parts) {
        case ["api", "cancel"]: self = .cancel
        case ["api", "recover"]: self = .recover
        case ["api", "cont"]: self = .cont
        case ["api", "pause"]: self = .pause
        case let guest where guest.count == 4 && guest[..<2] == ["api", "guests"]:
            guard let id = LiveGuest.ID(guest[2]) else { return nil }
            switch guest[3] {
            case "fill": self = .fill(id)
            case "release": self = .release(id)
            default: return nil
            }
        default: return nil
        }
    }

    /// The name for the log.
    var name: String {
        switch self {
        case .cancel: "cancel"
        case .recover: "recover"
        case .cont: "cont"
        case .pause: "pause"
        case .fill(let guest): "fill guest \(guest)"
        case .release(let guest): "release guest \(guest)"
        }
    }

    /// The form of the request's body.
    var form: String {
        switch self {
        case .cancel, .cont, .pause, .release: "{}"
        case .recover: #"{"uri": "tcp:HOST:PORT"}"#
        case .fill: #"{"rate_bytes_per_s": N}, with N from 1, or null for no limit"#
        }
    }

    private struct Members: Decodable {
        let uri: String?
        let rate: UInt64?

        enum CodingKeys: String, CodingKey {
            case uri
            case rate = "rate_bytes_per_s"
        }
    }

    /// The action with what its body says; nil if the body has another form.
    ///
    /// - Parameter body: the body; an empty one counts as an object without members.
    func action(_ body: Data) -> LiveAction? {
        // A body that is no such object is refused by the caller, which names the form.
        guard let members = try? JSONDecoder().decode(Members.self, from: body.isEmpty ? Data("{}".utf8) : body) else {
            return nil
        }
        switch self {
        case .cancel: return .cancel
        case .cont: return .cont
        case .pause: return .pause
        case .recover:
            // The longest address that a socket can have is that of a path.
            guard let uri = members.uri, (1...4200).contains(uri.utf8.count) else { return nil }
            return .recover(uri: uri)
        case .fill(let guest):
            // 0 stands for no limit, which a client that writes 0 does not mean.
            guard members.rate != 0 else { return nil }
            return .fill(guest, bytesPerSecond: members.rate ?? 0)
        case .release(let guest): return .release(guest)
        }
    }
}
