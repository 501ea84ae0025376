internal import FoundationEssentials
internal import NIOHTTP1

/// A Firecracker process, reached at its API socket.
///
/// Each call makes a connection of its own and blocks until Firecracker has answered: not for the threads that tasks
/// share. Firecracker does one request at a time, and answers when it is done.
public struct FirecrackerAPI: Sendable {
    /// Its API socket, `--api-sock`.
    public let socketPath: String
    private let timeout: Duration
    private let processorTimeout: Duration
    private let snapshotTimeout: Duration

    /// Firecracker's names are words joined by underscores.
    private static let encoder: JSONEncoder = {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return encoder
    }()

    private static let decoder: JSONDecoder = {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }()

    /// Names a Firecracker; nothing is sent yet.
    ///
    /// - Parameters:
    ///   - socketPath: its API socket.
    ///   - timeout: how long an answer may take.
    ///   - processorTimeout: the same for stopping processors and letting them go on, which Firecracker itself gives up
    ///     after 30 s. A request that it has begun to carry out goes on without whoever asked.
    ///   - snapshotTimeout: the same for the making and loading of a snapshot, which move the whole memory.
    public init(
        socketPath: String,
        timeout: Duration = .seconds(10),
        processorTimeout: Duration = .seconds(40),
        snapshotTimeout: Duration = .seconds(3600)
    ) {
        self.socketPath = socketPath
        self.timeout = timeout
        self.processorTimeout = processorTimeout
        self.snapshotTimeout = snapshotTimeout
    }

    /// What it is, and whether its microVM runs.
    public func instance() throws(FirecrackerError) -> Instance {
        try get("/", for: "ask Firecracker what it does")
    }

    /// Which Firecracker it is: `1.12.1`.
    public func version() throws(FirecrackerError) -> String {
        struct Version: Decodable { let firecrackerVersion: String }
        let version: Version = try get("/version", for: "ask Firecracker for its version")
        return version.firecrackerVersion
    }

    /// What its microVM is made of.
    public func machine() throws(FirecrackerError) -> Machine {
        struct Configuration: Decodable {
            let machine: Machine
            enum CodingKeys: String, CodingKey { case machine = "machine-config" }
        }
        let configuration: Configuration = try get("/vm/config", for: "ask Firecracker for its configuration")
        return configuration.machine
    }

    /// Stops the microVM's processors; fails where none runs. Where it fails some of them may stand still.
    public func pause() throws(FirecrackerError) {
        try send(.PATCH, "/vm", ["state": "Paused"], for: "pause the microVM", within: processorTimeout)
    }

    /// Lets the microVM's processors go on. Where it fails some of them may run.
    public func resume() throws(FirecrackerError) {
        try send(.PATCH, "/vm", ["state": "Resumed"], for: "resume the microVM", within: processorTimeout)
    }

    /// Writes a paused microVM to two files, and leaves it paused.
    ///
    /// - Parameters:
    ///   - state: the file for its devices and processors. Firecracker makes or truncates both.
    ///   - memory: the file for all of its memory, the regions one after another.
    public func createSnapshot(state: String, memory: String) throws(FirecrackerError) {
        let body = ["snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory]
        try send(.PUT, "/snapshot/create", body, for: "make a snapshot of the microVM", within: snapshotTimeout)
    }

    /// Makes the microVM of a snapshot, in a Firecracker that has none yet. One that fails ends its process.
    ///
    /// - Parameters:
    ///   - state: the file of its devices and processors.
    ///   - memory: where its memory is.
    ///   - resume: whether it runs at once.
    public func loadSnapshot(
        state: String,
        memory: SnapshotMemory,
        resume: Bool
    ) throws(FirecrackerError) {
        struct Load: Encodable {
            let snapshotPath: String
            let memBackend: SnapshotMemory
            let resumeVm: Bool
        }
        let body = Load(snapshotPath: state, memBackend: memory, resumeVm: resume)
        try send(.PUT, "/snapshot/load", body, for: "load the snapshot \(state)", within: snapshotTimeout)
    }

    /// Chooses what a microVM boots.
    ///
    /// - Parameters:
    ///   - kernel: an uncompressed ELF file.
    ///   - arguments: its command line.
    public func setBootSource(kernel: String, arguments: String = "") throws(FirecrackerError) {
        let body = ["kernel_image_path": kernel, "boot_args": arguments]
        try send(.PUT, "/boot-source", body, for: "set the kernel", within: timeout)
    }

    /// Chooses processors and memory, before the start.
    public func setMachine(_ machine: Machine) throws(FirecrackerError) {
        try send(.PUT, "/machine-config", machine, for: "set processors and memory", within: timeout)
    }

    /// Gives the microVM a balloon device that wants no pages, before the start.
    public func setBalloon() throws(FirecrackerError) {
        struct Balloon: Encodable {
            let amountMib = 0
            let deflateOnOom = false
        }
        try send(.PUT, "/balloon", Balloon(), for: "set the balloon", within: timeout)
    }

    /// Boots the microVM.
    public func start() throws(FirecrackerError) {
        try send(.PUT, "/actions", ["action_type": "InstanceStart"], for: "start the microVM", within: timeout)
    }

    private func get<Answer: Decodable>(_ path: String, for action: String) throws(FirecrackerError) -> Answer {
        let answer = try exchange(.GET, path, [], for: action, within: timeout)
        do {
            return try FirecrackerAPI.decoder.decode(Answer.self, from: Data(answer))
        } catch {
            let text = String(decoding: answer.prefix(200), as: UTF8.self)
            throw failure(action, "it answered '\(text)'; check that Firecracker runs there")
        }
    }

    private func send(
        _ method: HTTPMethod,
        _ path: String,
        _ body: some Encodable,
        for action: String,
        within timeout: Duration
    ) throws(FirecrackerError) {
        let bytes: Data
        do {
            bytes = try FirecrackerAPI.encoder.encode(body)
        } catch {
            preconditionFailure("strings and numbers have a JSON form: \(error)")
        }
        _ = try exchange(method, path, Array(bytes), for: action, within: timeout)
    }

    /// Makes a request and takes its answer, if that is one of success.
    private func exchange(
        _ method: HTTPMethod,
        _ path: String,
        _ body: [UInt8],
        for action: String,
        within timeout: Duration
    ) throws(FirecrackerError) -> [UInt8] {
        let answer: HTTPExchange.Answer
        do {
            answer = try HTTPExchange.run(method, path, body, at: socketPath, within: timeout)
        } catch {
            throw failure(action, error.reason, wasSent: error.wasSent)
        }
        guard !(200..<300).contains(answer.status) else { return answer.body }
        struct Fault: Decodable { let faultMessage: String }
        let fault = try? FirecrackerAPI.decoder.decode(Fault.self, from: Data(answer.body))
        let words = [answer.status.description, answer.reason].filter { !$0.isEmpty }.joined(separator: " ")
        throw failure(action, "\(words): \(fault?.faultMessage ?? "it did not say why")", status: answer.status)
    }

    private func failure(
        _ action: String,
        _ reason: String,
        status: Int? = nil,
        wasSent: Bool = true
    ) -> FirecrackerError {
        let line = reason.split(whereSeparator: \.isNewline).joined(separator: " ")
        return FirecrackerError(
            action: action,
            socketPath: socketPath,
            status: status,
            wasSent: wasSent,
            reason: line
        )
    }
}
