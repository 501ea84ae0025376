import Testing

@testable import QMP

@Suite struct QMPAddressTests {
    @Test(arguments: [
        ("/run/a.sock", "unix:/run/a.sock"), ("unix:/run/a.sock", "unix:/run/a.sock"), ("unix:a", "unix:a"),
        ("tcp:host:4444", "tcp:host:4444"), ("127.0.0.1:0", "tcp:127.0.0.1:0"), ("[::1]:65535", "tcp:[::1]:65535"),
    ])
    func `an address is read and written`(text: String, expected: String) {
        #expect(QMPAddress(text)?.description == expected)
        #expect(QMPAddress(expected)?.description == expected)
    }

    @Test(arguments: [
        "", "unix:", "host", "tcp:host", "tcp::4444", "host:65536", "host:-1", "::1:4444", "[]:1", "host:",
    ])
    func `what is no address is refused`(text: String) {
        #expect(QMPAddress(text) == nil)
    }
}

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

    @Test func `a missing argument is named`() {
        #expect(throws: QMPError.generic("Parameter 'x' is missing")) { try command.string("x") }
    }

    @Test func `an argument of the wrong type is named with the right one`() {
        #expect(throws: QMPError.generic("Invalid parameter type for 'n', expected: string")) {
            try command.stringIfPresent("n")
        }
        #expect(throws: QMPError.generic("Invalid parameter type for 'uri', expected: boolean")) {
            try command.boolean("uri")
        }
    }

    @Test func `an unexpected argument is named`() {
        #expect(throws: QMPError.generic("Parameter 'list' is unexpected")) {
            try command.allowOnly("uri", "resume", "n")
        }
    }
}
