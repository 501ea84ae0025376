/// The server's side of a session with one client: negotiation, the order of commands, and their answers.
///
/// Commands run one at a time in the order of their arrival. The error about an unreadable text takes its turn in the
/// same order. A command that is sent out of band runs at once, and a patient command with an id lets the commands
/// after it begin.
struct SessionStateMachine: Hashable {
    /// The next step for the owner of the connection.
    enum Action: Hashable {
        /// Send this message.
        case answer(JSONValue)
        /// Carry out the command, then report its result by `finished`.
        ///
        /// A command that runs beside the others holds none of them up.
        case run(QMPCommand, isBeside: Bool)
        /// Do nothing yet: earlier commands come first.
        case wait
    }

    private enum State: Hashable {
        /// The server has greeted the client; the client has not negotiated. → serving
        case negotiating
        /// The session accepts commands. Stays.
        case serving(outOfBand: Bool)
    }

    private enum Request: Hashable {
        case command(QMPCommand)
        case complaint(QMPError, id: JSONValue?)
    }

    /// The capability that allows `exec-oob`, the only one there is.
    static let outOfBandCapability = "oob"

    private let version: QMPVersion
    private let commands: [QMPCommandDescription]
    private let events: [QMPEventDescription]
    private let maximumCommands: Int
    private var state = State.negotiating
    private var waiting: [Request] = []
    private var isRunning = false
    /// Commands that run beside the others.
    private var besideRunning = 0

    /// - Parameters:
    ///   - version: the result of `query-version`.
    ///   - commands: the commands that the handler knows.
    ///   - events: the events that the server may send.
    ///   - maximumCommands: the number of running and waiting commands at which no more input should be read.
    init(
        version: QMPVersion,
        commands: [QMPCommandDescription],
        events: [QMPEventDescription] = [],
        maximumCommands: Int
    ) {
        self.version = version
        self.commands = commands
        self.events = events
        self.maximumCommands = maximumCommands
    }

    /// The first message of a connection.
    var greeting: JSONValue {
        ["QMP": ["version": version.json, "capabilities": [.string(Self.outOfBandCapability)]]]
    }

    /// Whether events may be sent.
    var isNegotiated: Bool { state != .negotiating }

    /// Whether the session may accept another command.
    var hasRoom: Bool { waiting.count + (isRunning ? 1 : 0) + besideRunning < maximumCommands }

    /// Whether every command has been answered.
    var isIdle: Bool { !isRunning && waiting.isEmpty && besideRunning == 0 }

    /// Takes a message of the client, or the error of a text that could not be read.
    mutating func received(_ message: Result<JSONValue, QMPError>) -> Action {
        let request: Request
        switch message {
        case .success(let json):
            do throws(QMPError) {
                let (command, outOfBand) = try QMPCommand.read(
                    json,
                    outOfBandAllowed: state == .serving(outOfBand: true)
                )
                if outOfBand { return start(command, isBeside: true) }
                request = .command(command)
            } catch {
                request = .complaint(error, id: json["id"])
            }
        case .failure(let error):
            request = .complaint(error, id: nil)
        }
        guard !isRunning, waiting.isEmpty else {
            waiting.append(request)
            return .wait
        }
        return start(request)
    }

    /// Takes the result of a command and returns the answer to send.
    ///
    /// Call `next` afterwards until it returns nil.
    mutating func finished(
        _ command: QMPCommand,
        isBeside: Bool,
        _ result: Result<JSONValue, QMPError>
    ) -> JSONValue {
        if isBeside { besideRunning -= 1 } else { isRunning = false }
        return Self.answer(result, id: command.id)
    }

    /// Starts the oldest waiting request; nil if no request waits or a command runs.
    mutating func next() -> Action? {
        guard !isRunning, !waiting.isEmpty else { return nil }
        return start(waiting.removeFirst())
    }

    /// Drops the requests that have not begun.
    mutating func dropWaiting() {
        waiting = []
    }

    private mutating func start(_ request: Request) -> Action {
        switch request {
        case .complaint(let error, let id): .answer(Self.answer(.failure(error), id: id))
        case .command(let command):
            start(
                command,
                isBeside: command.id != nil && commands.contains { $0.name == command.name && $0.isPatient }
            )
        }
    }

    private mutating func start(_ command: QMPCommand, isBeside: Bool) -> Action {
        do throws(QMPError) {
            if let result = try answerAlone(command) { return .answer(Self.answer(.success(result), id: command.id)) }
        } catch {
            return .answer(Self.answer(.failure(error), id: command.id))
        }
        if isBeside { besideRunning += 1 } else { isRunning = true }
        return .run(command, isBeside: isBeside)
    }

    /// The result of a command that needs no handler; nil if the command needs one.
    private mutating func answerAlone(_ command: QMPCommand) throws(QMPError) -> JSONValue? {
        switch (command.name, state) {
        case (QMPCommandDescription.capabilities.name, .negotiating):
            try negotiate(command)
            return [:]
        case (QMPCommandDescription.capabilities.name, .serving):
            throw QMPError(.commandNotFound, "Capabilities negotiation is already complete, command ignored")
        case (let name, .negotiating):
            throw QMPError(
                .commandNotFound,
                "Expecting capabilities negotiation with 'qmp_capabilities' before command '\(name)'"
            )
        case (QMPCommandDescription.version.name, .serving):
            try QMPCommandDescription.version.check(command)
            return version.json
        case (QMPCommandDescription.commands.name, .serving):
            try QMPCommandDescription.commands.check(command)
            return named((commands + QMPCommandDescription.own).map(\.name))
        case (QMPCommandDescription.events.name, .serving):
            try QMPCommandDescription.events.check(command)
            return named(events.map(\.name))
        case (QMPCommandDescription.schema.name, .serving):
            try QMPCommandDescription.schema.check(command)
            return QMPSchema.json(commands: commands + QMPCommandDescription.own, events: events)
        case (let name, .serving):
            guard commands.contains(where: { $0.name == name }) else { throw .commandNotFound(name) }
            return nil
        }
    }

    private func named(_ names: [String]) -> JSONValue { .array(names.sorted().map { ["name": .string($0)] }) }

    private mutating func negotiate(_ command: QMPCommand) throws(QMPError) {
        try QMPCommandDescription.capabilities.check(command)
        var outOfBand = false
        for capability in try command.arrayIfPresent("enable") ?? [] {
            guard let name = capability.string else {
                throw .generic("Invalid parameter type for 'enable', expected: array of strings")
            }
            guard name == Self.outOfBandCapability else {
                throw .generic("Parameter 'enable' does not accept value '\(name)'")
            }
            outOfBand = true
        }
        state = .serving(outOfBand: outOfBand)
    }

    private static func answer(_ result: Result<JSONValue, QMPError>, id: JSONValue?) -> JSONValue {
        var members: [String: JSONValue]
        switch result {
        case .success(let value): members = ["return": value]
        case .failure(let error): members = ["error": error.json]
        }
        if let id { members["id"] = id }
        return .object(members)
    }
}
