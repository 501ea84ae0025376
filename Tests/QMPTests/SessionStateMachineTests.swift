import Testing

@testable import QMP

@Suite struct SessionStateMachineTests {
    private static let version = QMPVersion(major: 10, minor: 2, micro: 0, package: "pageferry")

    private func machine(negotiated enable: JSONValue? = nil, maximumCommands: Int = 4) -> SessionStateMachine {
        var machine = SessionStateMachine(
            version: Self.version,
            commands: [
                QMPCommandDescription("stop"), QMPCommandDescription("cont"),
                QMPCommandDescription("linger", isPatient: true),
            ],
            maximumCommands: maximumCommands
        )
        if let enable {
            let action = machine.receive(["execute": "qmp_capabilities", "arguments": ["enable": enable]])
            #expect(action == .answer(["return": [:]]))
        }
        return machine
    }

    private func error(_ errorClass: String, _ description: String) -> JSONValue {
        ["class": .string(errorClass), "desc": .string(description)]
    }

    @Test func `the greeting names version and capability`() {
        #expect(
            machine().greeting.description
                == #"{"QMP":{"capabilities":["oob"],"version":{"package":"pageferry","qemu":{"major":10,"micro":0,"minor":2}}}}"#
        )
    }

    @Test func `a command before negotiation is not found`() {
        var machine = machine()
        let description = "Expecting capabilities negotiation with 'qmp_capabilities' before command 'stop'"
        #expect(
            machine.receive(["execute": "stop", "id": 1])
                == .answer(["error": error("CommandNotFound", description), "id": 1])
        )
        #expect(!machine.isNegotiated)
    }

    @Test func `negotiation happens once`() {
        var machine = machine(negotiated: [])
        #expect(machine.isNegotiated)
        let description = "Capabilities negotiation is already complete, command ignored"
        #expect(
            machine.receive(["execute": "qmp_capabilities"])
                == .answer(["error": error("CommandNotFound", description)])
        )
    }

    @Test func `a patient command with an id does not hold up other commands`() {
        var machine = machine(negotiated: [])
        let (named, nameless) = (QMPCommand(name: "linger", id: 1), QMPCommand(name: "linger"))
        let (stop, cont) = (QMPCommand(name: "stop"), QMPCommand(name: "cont"))
        #expect(machine.receive(["execute": "linger", "id": 1]) == .run(named, isBeside: true))
        #expect(machine.receive(["execute": "stop"]) == .run(stop, isBeside: false))
        #expect(machine.receive(["execute": "linger", "id": 1]) == .wait)
        #expect(machine.receive(["execute": "cont"]) == .wait)
        #expect(machine.finished(stop, isBeside: false, .success([:])) == ["return": [:]])
        #expect(machine.next() == .run(named, isBeside: true))
        #expect(machine.next() == .run(cont, isBeside: false))
        #expect(machine.finished(cont, isBeside: false, .success([:])) == ["return": [:]])
        #expect(machine.receive(["execute": "linger"]) == .run(nameless, isBeside: false))
        #expect(machine.receive(["execute": "stop"]) == .wait)
        #expect(machine.finished(named, isBeside: true, .success([:])) == ["return": [:], "id": 1])
        #expect(machine.next() == nil)
        #expect(machine.finished(nameless, isBeside: false, .success([:])) == ["return": [:]])
        #expect(machine.next() == .run(stop, isBeside: false))
    }

    @Test func `an id comes back as it was sent, however large`() throws {
        var machine = machine(negotiated: [])
        let command = try JSONReader.read(Array(#"{"execute":"stop","id":9223372036854775809}"#.utf8))
        guard case .run(let stop, _) = machine.received(.success(command)) else {
            return _ = Issue.record("the command does not run")
        }
        let answer = machine.finished(stop, isBeside: false, .success([:]))
        #expect(answer.description == #"{"id":9223372036854775809,"return":{}}"#)
    }

    @Test func `a client that asks for an unknown capability can still negotiate`() {
        var machine = machine()
        let action = machine.receive(["execute": "qmp_capabilities", "arguments": ["enable": ["oob", "tea"]]])
        #expect(
            action == .answer(["error": error("GenericError", "Parameter 'enable' does not accept value 'tea'")])
        )
        #expect(!machine.isNegotiated)
    }

    @Test(
        arguments: [
            ([], "QMP input must be a JSON object"),
            (["execute": 1], "QMP input member 'execute' must be a string"),
            (["arguments": [:]], "QMP input lacks member 'execute'"),
            (["execute": "stop", "x": 1], "QMP input member 'x' is unexpected"),
            (["execute": "stop", "arguments": []], "QMP input member 'arguments' must be an object"),
            (["exec-oob": "stop"], "QMP input member 'exec-oob' is unexpected"),
            (["execute": "query-version", "arguments": ["x": 1]], "Parameter 'x' is unexpected"),
        ] as [(JSONValue, String)]
    )
    func `the error says why a message is not a command`(message: JSONValue, description: String) {
        var machine = machine(negotiated: [])
        #expect(machine.receive(message) == .answer(["error": error("GenericError", description)]))
    }

    @Test func `both kinds of execution in one message clash`() {
        var machine = machine(negotiated: ["oob"])
        let description = "QMP input member 'exec-oob' clashes with 'execute'"
        #expect(
            machine.receive(["execute": "stop", "exec-oob": "stop", "id": "x"])
                == .answer(["error": error("GenericError", description), "id": "x"])
        )
    }

    @Test func `an unknown command is not found`() {
        var machine = machine(negotiated: [])
        let error = error("CommandNotFound", "The command foo has not been found")
        #expect(machine.receive(["execute": "foo"]) == .answer(["error": error]))
    }

    @Test func `commands and errors keep their order`() {
        var machine = machine(negotiated: [])
        let stop = QMPCommand(name: "stop", id: 1)
        #expect(machine.receive(["execute": "stop", "id": 1]) == .run(stop, isBeside: false))
        #expect(machine.receive(["execute": "query-version", "id": 2]) == .wait)
        #expect(machine.received(.failure(.generic("no JSON"))) == .wait)
        #expect(machine.receive(["execute": "cont", "id": 3]) == .wait)
        #expect(!machine.hasRoom)
        #expect(machine.next() == nil)
        #expect(machine.finished(stop, isBeside: false, .success([:])) == ["return": [:], "id": 1])
        #expect(machine.next() == .answer(["return": Self.version.json, "id": 2]))
        #expect(machine.next() == .answer(["error": error("GenericError", "no JSON")]))
        #expect(machine.next() == .run(QMPCommand(name: "cont", id: 3), isBeside: false))
        #expect(machine.next() == nil)
        #expect(machine.hasRoom)
        #expect(!machine.isIdle)
    }

    @Test func `an out-of-band command overtakes others`() {
        var machine = machine(negotiated: ["oob"])
        let stop = QMPCommand(name: "stop", id: 1)
        let cont = QMPCommand(name: "cont", id: 2)
        #expect(machine.receive(["execute": "stop", "id": 1]) == .run(stop, isBeside: false))
        #expect(machine.receive(["exec-oob": "cont", "id": 2]) == .run(cont, isBeside: true))
        #expect(
            machine.finished(cont, isBeside: true, .failure(.generic("no"))) == [
                "error": error("GenericError", "no"), "id": 2,
            ]
        )
        #expect(machine.next() == nil)
        #expect(!machine.isIdle)
        _ = machine.finished(stop, isBeside: false, .success([:]))
        #expect(machine.isIdle)
    }

    @Test func `waiting commands can be dropped`() {
        var machine = machine(negotiated: [])
        let stop = QMPCommand(name: "stop")
        #expect(machine.receive(["execute": "stop"]) == .run(stop, isBeside: false))
        #expect(machine.receive(["execute": "cont"]) == .wait)
        machine.dropWaiting()
        _ = machine.finished(stop, isBeside: false, .success([:]))
        #expect(machine.next() == nil)
        #expect(machine.isIdle)
    }
}

extension SessionStateMachine {
    fileprivate mutating func receive(_ message: JSONValue) -> Action { received(.success(message)) }
}
