import Testing

@testable import QMP

@Suite struct QMPCommandTests {
    let command = QMPCommand(name: "migrate", arguments: ["uri": "tcp:a:1", "resume": true, "n": 4, "list": [1]])

    @Test func `arguments are read by their type`() throws {
        #expect(try command.string("uri") == "tcp:a:1")
        #expect(try command.boolean("resume"))
        #expect(try command.integer("n") == 4)
        #expect(try command.array("list") == [1])
        #expect(try command.stringIfPresent("none") == nil)
        #expect(try command.booleanIfPresent("none") == nil)
        #expect(try command.integerIfPresent("none") == nil)
        try command.allowOnly("uri", "resume", "n", "list")
    }

    @Test func `the error names a missing argument`() {
        #expect(throws: QMPError.generic("Parameter 'x' is missing")) { try command.string("x") }
    }

    @Test func `the error names an argument of the wrong type and the right type`() {
        #expect(throws: QMPError.generic("Invalid parameter type for 'n', expected: string")) {
            try command.stringIfPresent("n")
        }
        #expect(throws: QMPError.generic("Invalid parameter type for 'uri', expected: boolean")) {
            try command.boolean("uri")
        }
    }

    @Test func `the error names an unexpected argument`() {
        #expect(throws: QMPError.generic("Parameter 'list' is unexpected")) {
            try command.allowOnly("uri", "resume", "n")
        }
    }
}
