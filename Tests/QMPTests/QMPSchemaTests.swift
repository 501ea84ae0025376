import Testing

@testable import QMP

@Suite struct QMPSchemaTests {
    private let commands = [
        QMPCommandDescription(
            "move",
            arguments: [
                .required("to", .string), .optional("speed", .integer), .optional("mode", .words(["slow", "fast"])),
                .optional("via", .array(.object([.required("host", .string)]))),
                .optional("key", .either([.string, .null])),
            ],
            result: .array(.number)
        ),
        QMPCommandDescription("halt"),
    ]
    private let events = [QMPEventDescription("MOVED", data: [.required("done", .boolean)])]

    private func ask(_ name: String) throws -> JSONValue {
        var machine = SessionStateMachine(
            version: QMPVersion(),
            commands: commands,
            events: events,
            maximumCommands: 4
        )
        _ = machine.received(.success(["execute": "qmp_capabilities"]))
        guard case .answer(let answer) = machine.received(.success(["execute": .string(name)])) else { return nil }
        return try #require(answer["return"])
    }

    @Test func `commands and events are listed by their names`() throws {
        let own = ["qmp_capabilities", "query-commands", "query-events", "query-qmp-schema", "query-version"]
        #expect(try ask("query-commands") == .array((["halt", "move"] + own).map { ["name": .string($0)] }))
        #expect(try ask("query-events") == [["name": "MOVED"]])
    }

    @Test func `the schema describes every command, event and type once`() throws {
        let schema = try #require(try ask("query-qmp-schema").array)
        #expect(QMPCommandDescription.schema.result.includes(.array(schema)))
        let names = schema.compactMap { $0["name"]?.string }
        #expect(names.count == schema.count)
        #expect(Set(names).count == names.count)
        let entries = Dictionary(uniqueKeysWithValues: zip(names, schema))
        #expect(
            Set(schema.filter { $0["meta-type"] == "command" }.compactMap { $0["name"]?.string })
                == Set(try ask("query-commands").array?.compactMap { $0["name"]?.string } ?? [])
        )
        func entry(_ reference: JSONValue?) throws -> JSONValue { try #require(entries[reference?.string ?? ""]) }
        func references(_ entry: JSONValue) -> [JSONValue] {
            [entry["arg-type"], entry["ret-type"], entry["element-type"]].compactMap(\.self)
                + (entry["members"]?.array ?? []).compactMap { $0["type"] }
        }
        for reference in schema.flatMap(references) { _ = try entry(reference) }

        let move = try entry("move")
        #expect(move["allow-oob"] == true)
        let arguments = try #require(try entry(move["arg-type"])["members"]?.array)
        #expect(arguments.map { $0["name"] } == ["to", "speed", "mode", "via", "key"])
        // In the schema, a null default means that an argument is optional.
        #expect(arguments.map { $0["default"] } == [nil, .null, .null, .null, .null])
        let types = try arguments.map { try entry($0["type"]) }
        #expect(types[0] == ["name": "str", "meta-type": "builtin", "json-type": "string"])
        #expect(types[1]["json-type"] == "int")
        #expect(types[2]["meta-type"] == "enum")
        #expect(types[2]["values"] == ["slow", "fast"])
        #expect(types[3]["meta-type"] == "array")
        #expect(try entry(types[3]["element-type"])["members"] == [["name": "host", "type": "str"]])
        #expect(types[4]["meta-type"] == "alternate")
        #expect(types[4]["members"] == [["type": "str"], ["type": "null"]])
        #expect(try entry(entry(move["ret-type"])["element-type"])["json-type"] == "number")
        let moved = try entry("MOVED")
        #expect(moved["meta-type"] == "event")
        #expect(try entry(moved["arg-type"])["members"] == [["name": "done", "type": "bool"]])
        #expect(try entry(entry("halt")["ret-type"])["members"] == [])
    }

    @Test(
        arguments: [
            (["to": "b", "speed": 1, "mode": "warp", "via": [7], "key": nil], nil),
            ([:], "Parameter 'to' is missing"),
            (["to": "b", "size": 1], "Parameter 'size' is unexpected"),
            (["to": 1], "Invalid parameter type for 'to', expected: string"),
            (["to": "b", "speed": 1.5], "Invalid parameter type for 'speed', expected: integer"),
            (["to": "b", "mode": 1], "Invalid parameter type for 'mode', expected: string"),
            (["to": "b", "via": [:]], "Invalid parameter type for 'via', expected: array"),
            (["to": "b", "key": 1], "Invalid parameter type for 'key', expected: string"),
        ] as [([String: JSONValue], String?)]
    )
    func `an argument that is not described is refused`(arguments: [String: JSONValue], refusal: String?) {
        let check = { () throws(QMPError) in
            try commands[0].check(QMPCommand(name: "move", arguments: arguments))
        }
        if let refusal {
            #expect(throws: QMPError.generic(refusal)) { try check() }
        } else {
            #expect(throws: Never.self) { try check() }
        }
    }
}
