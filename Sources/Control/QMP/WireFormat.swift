internal import FoundationEssentials
internal import NIOCore

// Conversions of commands, errors and events to and from JSON.

extension QMPCommand {
    /// Reads a command from the object that a client sent.
    ///
    /// - Returns: the command, and whether it was sent out of band.
    /// - Throws: `GenericError` that names the member at fault.
    static func read(
        _ json: JSONValue,
        outOfBandAllowed: Bool
    ) throws(QMPError) -> (command: QMPCommand, outOfBand: Bool) {
        guard let members = json.object else { throw .generic("QMP input must be a JSON object") }
        for member in members.keys.sorted() {
            switch member {
            case "execute", "arguments", "id": continue
            case "exec-oob" where outOfBandAllowed: continue
            default: throw .generic("QMP input member '\(member)' is unexpected")
            }
        }
        let key = members["exec-oob"] == nil ? "execute" : "exec-oob"
        guard let name = members[key] else { throw .generic("QMP input lacks member 'execute'") }
        guard let name = name.string else { throw .generic("QMP input member '\(key)' must be a string") }
        guard key == "execute" || members["execute"] == nil else {
            throw .generic("QMP input member 'exec-oob' clashes with 'execute'")
        }
        let arguments = members["arguments"] ?? [:]
        guard let arguments = arguments.object else {
            throw .generic("QMP input member 'arguments' must be an object")
        }
        return (QMPCommand(name: name, arguments: arguments, id: members["id"]), key == "exec-oob")
    }

    /// The command as the object that a client sends.
    func json(outOfBand: Bool) -> JSONValue {
        var members: [String: JSONValue] = [outOfBand ? "exec-oob" : "execute": .string(name)]
        if !arguments.isEmpty { members["arguments"] = .object(arguments) }
        if let id { members["id"] = id }
        return .object(members)
    }
}

extension QMPError {
    /// The value of the member `error` of an answer.
    var json: JSONValue { ["class": .string(errorClass.rawValue), "desc": .string(description)] }

    /// Reads an error from the member `error` of an answer.
    init(json: JSONValue) {
        self.init(
            json["class"]?.string.map(Class.init(rawValue:)) ?? .genericError,
            json["desc"]?.string ?? "error without a description: \(json)"
        )
    }
}

extension QMPEvent {
    /// The event as the object that a server sends.
    var json: JSONValue {
        var members: [String: JSONValue] = [
            "event": .string(name),
            "timestamp": ["seconds": .integer(timestamp.seconds), "microseconds": .integer(timestamp.microseconds)],
        ]
        if !data.isEmpty { members["data"] = .object(data) }
        return .object(members)
    }

    /// Reads an event from the object that a server sent; nil if the object is not an event.
    init?(json: JSONValue) {
        guard let name = json["event"]?.string else { return nil }
        self.init(
            name: name,
            data: json["data"]?.object ?? [:],
            timestamp: Timestamp(
                seconds: json["timestamp"]?["seconds"]?.integer ?? 0,
                microseconds: json["timestamp"]?["microseconds"]?.integer ?? 0
            )
        )
    }
}

extension QMPEvent.Timestamp {
    /// The present moment.
    package static var now: Self {
        let microseconds = Int64((Date().timeIntervalSince1970 * 1_000_000).rounded(.down))
        return Self(seconds: microseconds / 1_000_000, microseconds: microseconds % 1_000_000)
    }
}

extension ByteBuffer {
    /// A message as it is sent: one JSON text, ended by CRLF.
    init(message: JSONValue) {
        let text = message.text
        self = ByteBufferAllocator().buffer(capacity: text.count + 2)
        writeBytes(text)
        writeStaticString("\r\n")
    }
}
