/// The result of `query-qmp-schema`: every command and event, and the types that they use, each listed once by name.
///
/// As in QEMU, the names of types have no meaning for clients, except those of the predefined types.
struct QMPSchema {
    private var entries: [JSONValue] = []
    private var names: [QMPType: String] = [:]

    /// The array of QEMU's `SchemaInfo` for these commands and events.
    static func json(commands: [QMPCommandDescription], events: [QMPEventDescription]) -> JSONValue {
        var schema = QMPSchema()
        for command in commands {
            let (arguments, result) = (schema.name(of: .object(command.arguments)), schema.name(of: command.result))
            schema.add(
                command.name,
                "command",
                // A client that has negotiated `oob` may send any command out of band.
                [
                    "arg-type": .string(arguments), "ret-type": .string(result),
                    "allow-oob": .boolean(command != .capabilities),
                ]
            )
        }
        for event in events {
            schema.add(event.name, "event", ["arg-type": .string(schema.name(of: .object(event.data)))])
        }
        return .array(schema.entries)
    }

    private mutating func add(_ name: String, _ metaType: String, _ members: [String: JSONValue]) {
        let base: [String: JSONValue] = ["name": .string(name), "meta-type": .string(metaType)]
        entries.append(.object(base.merging(members) { $1 }))
    }

    /// Returns the name of a type in the schema, and adds the type and its parts if the schema does not list them yet.
    private mutating func name(of type: QMPType) -> String {
        if let name = names[type] { return name }
        let name: String
        switch type {
        case .string: name = builtin("str", "string")
        case .integer: name = builtin("int", "int")
        case .number: name = builtin("number", "number")
        case .boolean: name = builtin("bool", "boolean")
        case .null: name = builtin("null", "null")
        case .any: name = builtin("any", "value")
        case .array(let element):
            let elementName = self.name(of: element)
            name = "[\(elementName)]"
            add(name, "array", ["element-type": .string(elementName)])
        case .words(let words):
            name = "\(names.count)"
            let members: [JSONValue] = words.map { ["name": .string($0)] }
            add(name, "enum", ["members": .array(members), "values": .array(words.map { .string($0) })])
        case .object(let members):
            let described = members.map { member -> JSONValue in
                let typeName = self.name(of: member.type)
                return member.isOptional
                    ? ["name": .string(member.name), "type": .string(typeName), "default": nil]
                    : ["name": .string(member.name), "type": .string(typeName)]
            }
            name = "\(names.count)"
            add(name, "object", ["members": .array(described)])
        case .either(let types):
            let members = types.map { type -> JSONValue in ["type": .string(self.name(of: type))] }
            name = "\(names.count)"
            add(name, "alternate", ["members": .array(members)])
        }
        names[type] = name
        return name
    }

    private mutating func builtin(_ name: String, _ jsonType: String) -> String {
        add(name, "builtin", ["json-type": .string(jsonType)])
        return name
    }
}

// The commands that every server answers by itself.
extension QMPCommandDescription {
    static let capabilities = QMPCommandDescription(
        "qmp_capabilities",
        arguments: [.optional("enable", .array(.words([SessionStateMachine.outOfBandCapability])))]
    )
    static let version = QMPCommandDescription(
        "query-version",
        result: .object([
            .required(
                "qemu",
                .object([.required("major", .integer), .required("minor", .integer), .required("micro", .integer)])
            ),
            .required("package", .string),
        ])
    )
    private static let named = QMPType.array(.object([.required("name", .string)]))
    static let commands = QMPCommandDescription("query-commands", result: named)
    static let events = QMPCommandDescription("query-events", result: named)
    static let schema = QMPCommandDescription(
        "query-qmp-schema",
        result: .array(
            .object([
                .required("name", .string),
                .required(
                    "meta-type",
                    .words(["builtin", "enum", "array", "object", "alternate", "command", "event"])
                ),
                .optional("json-type", .string), .optional("element-type", .string),
                .optional("values", .array(.string)),
                .optional("arg-type", .string), .optional("ret-type", .string), .optional("allow-oob", .boolean),
                .optional(
                    "members",
                    .array(
                        .object([
                            .optional("name", .string), .optional("type", .string), .optional("default", .null),
                        ])
                    )
                ),
            ])
        )
    )

    /// All commands that every server answers by itself.
    static let own = [capabilities, version, commands, events, schema]
}
