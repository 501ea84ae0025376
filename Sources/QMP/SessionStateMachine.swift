/// What a server owes one client: negotiation, the order of commands, and what each is answered with.
///
/// Commands run one at a time in the order in which they came, and so do complaints about texts that are none. One that
/// is sent out of band runs at once, and a patient one that carries an id lets those after it begin.
struct SessionStateMachine: Hashable {
    /// What the owner of the connection is to do.
    enum Action: Hashable {
        /// Send this.
        case answer(JSONValue)
        /// Have the command carried out, then report it by `finished`.
        ///
        /// One that runs beside the others holds none of them up.
        case run(QMPCommand, isBeside: Bool)
        /// Nothing yet: earlier commands come first.
        case wait
    }

    private enum State: Hashable {
        /// The greeting is out, the answer to it is not in. → serving
        case negotiating
        /// Commands are taken. Stays.
        case serving(outOfBand: Bool)
    }

    private enum Request: Hashable {
        case command(QMPCommand)
        case complaint(QMPError, id: JSONValue?)
    }

    /// The capability that allows `exec-oob`, the only one there is.
    static let outOfBandCapability = "oob"

    private let version: QMPVersion
    private let commandNames: [String]
    private let patientCommands: Set<String>
    private let maximumCommands: Int
    private var state = State.negotiating
    private var waiting: [Request] = []
    private var isRunning = false
    /// Commands that run beside the others.
    private var besideRunning = 0

    /// - Parameters:
    ///   - version: what `query-version` returns.
    ///   - commandNames: what the handler knows.
    ///   - patientCommands: those that hold up no other.
    ///   - maximumCommands: how many may run and wait before no more input should be read.
    init(version: QMPVersion, commandNames: [String], patientCommands: Set<String> = [], maximumCommands: Int) {
        self.version = version
        self.commandNames = commandNames
        self.patientCommands = patientCommands
        self.maximumCommands = maximumCommands
    }

    /// The first message of a connection.
    var greeting: JSONValue {
        ["QMP": ["version": version.json, "capabilities": [.string(Self.outOfBandCapability)]]]
    }

    /// Whether events may be sent.
    var isNegotiated: Bool { state != .negotiating }

    /// Whether another command may be taken in.
    var hasRoom: Bool { waiting.count + (isRunning ? 1 : 0) + besideRunning < maximumCommands }

    /// Whether everything that came has been answered.
    var isIdle: Bool { !isRunning && waiting.isEmpty && besideRunning == 0 }

    /// A text came in, or something that is none.
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

    /// A command has been carried out.
    ///
    /// Returns its answer; afterwards ask for `next` until that is nil.
    mutating func finished(
        _ command: QMPCommand,
        isBeside: Bool,
        _ result: Result<JSONValue, QMPError>
    ) -> JSONValue {
        if isBeside { besideRunning -= 1 } else { isRunning = false }
        return Self.answer(result, id: command.id)
    }

    /// What to do for the oldest request that waits; nil if none waits or one runs.
    mutating func next() -> Action? {
        guard !isRunning, !waiting.isEmpty else { return nil }
        return start(waiting.removeFirst())
    }

    /// Forgets what has not begun.
    mutating func dropWaiting() {
        waiting = []
    }

    private mutating func start(_ request: Request) -> Action {
        switch request {
        case .complaint(let error, let id): .answer(Self.answer(.failure(error), id: id))
        case .command(let command):
            start(command, isBeside: command.id != nil && patientCommands.contains(command.name))
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

    /// The result of a command that needs no handler; nil for one that does.
    private mutating func answerAlone(_ command: QMPCommand) throws(QMPError) -> JSONValue? {
        switch (command.name, state) {
        case ("qmp_capabilities", .negotiating):
            try negotiate(command)
            return [:]
        case ("qmp_capabilities", .serving):
            throw QMPError(.commandNotFound, "Capabilities negotiation is already complete, command ignored")
        case (let name, .negotiating):
            throw QMPError(
                .commandNotFound,
                "Expecting capabilities negotiation with 'qmp_capabilities' before command '\(name)'"
            )
        case ("query-version", .serving):
            try command.allowOnly()
            return version.json
        case ("query-commands", .serving):
            try command.allowOnly()
            let own = ["qmp_capabilities", "query-commands", "query-version"]
            return .array((commandNames + own).sorted().map { ["name": .string($0)] })
        case (let name, .serving):
            guard commandNames.contains(name) else { throw .commandNotFound(name) }
            return nil
        }
    }

    private mutating func negotiate(_ command: QMPCommand) throws(QMPError) {
        try command.allowOnly("enable")
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
