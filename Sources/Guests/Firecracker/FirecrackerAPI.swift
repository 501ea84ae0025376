internal import FoundationEssentials
internal import HTTPRequests
internal import LinuxSystem
internal import NIOHTTP1

/// The API of a Firecracker process, at its API socket.
///
/// Each call opens a new connection and blocks until Firecracker has answered, so it must not be made on a thread of
/// Swift's concurrency pool. Firecracker carries out one request at a time, and answers when the request is done.
package struct FirecrackerAPI: Sendable {
    /// The path of the API socket, Firecracker's option `--api-sock`.
    package let socketPath: String
    private let timeout: Duration
    private let processorTimeout: Duration
    private let snapshotTimeout: Duration

    /// Writes keys in snake case, as Firecracker's API has them.
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

    /// Makes the API of a Firecracker without connecting to it.
    ///
    /// A request that times out may still be carried out: Firecracker finishes what it has begun.
    ///
    /// - Parameters:
    ///   - socketPath: the path of the API socket.
    ///   - timeout: the longest wait for an answer.
    ///   - processorTimeout: the longest wait for a pause or a resume, which Firecracker itself gives up after 30 s.
    ///   - snapshotTimeout: the longest wait for creating or loading a snapshot, which moves the whole memory.
    package init(
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

    /// Asks for Firecracker's id, and whether a microVM runs.
    package func instance() throws(FirecrackerError) -> Instance {
        try get("/", for: "ask Firecracker for its state")
    }

    /// Asks for Firecracker's release, such as `1.12.1`.
    package func version() throws(FirecrackerError) -> String {
        struct Version: Decodable { let firecrackerVersion: String }
        let version: Version = try get("/version", for: "ask Firecracker for its version")
        return version.firecrackerVersion
    }

    /// Asks for the microVM's vCPUs and memory.
    package func machine() throws(FirecrackerError) -> Machine {
        struct Configuration: Decodable {
            let machine: Machine
            enum CodingKeys: String, CodingKey { case machine = "machine-config" }
        }
        let configuration: Configuration = try get("/vm/config", for: "ask Firecracker for its configuration")
        return configuration.machine
    }

    /// Pauses the microVM's vCPUs.
    ///
    /// - Throws: also if no microVM runs. Some vCPUs may be paused after a failure.
    package func pause() throws(FirecrackerError) {
        try send(.PATCH, "/vm", ["state": "Paused"], for: "pause the microVM", within: processorTimeout)
    }

    /// Resumes the microVM's vCPUs.
    ///
    /// - Throws: if Firecracker does not confirm the resume. Some vCPUs may run after a failure.
    package func resume() throws(FirecrackerError) {
        try send(.PATCH, "/vm", ["state": "Resumed"], for: "resume the microVM", within: processorTimeout)
    }

    /// Writes a paused microVM to two files, and leaves the microVM paused.
    ///
    /// Firecracker creates both files, or truncates them.
    ///
    /// - Parameters:
    ///   - state: the file for devices and vCPUs.
    ///   - memory: the file for the whole memory, the regions one after another.
    package func createSnapshot(state: String, memory: String) throws(FirecrackerError) {
        let body = ["snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory]
        try send(.PUT, "/snapshot/create", body, for: "make a snapshot of the microVM", within: snapshotTimeout)
    }

    /// Loads a snapshot into a Firecracker that has no microVM yet.
    ///
    /// Firecracker exits if the snapshot cannot be loaded.
    ///
    /// - Parameters:
    ///   - state: the file of devices and vCPUs.
    ///   - memory: the source of the memory.
    ///   - resume: whether the microVM runs at once.
    package func loadSnapshot(
        state: String,
        memory: MemoryBackend,
        resume: Bool
    ) throws(FirecrackerError) {
        struct Load: Encodable {
            let snapshotPath: String
            let memBackend: MemoryBackend
            let resumeVm: Bool
        }
        let body = Load(snapshotPath: state, memBackend: memory, resumeVm: resume)
        try send(.PUT, "/snapshot/load", body, for: "load the snapshot \(state)", within: snapshotTimeout)
    }

    /// Sets the kernel that the microVM will boot.
    ///
    /// - Parameters:
    ///   - kernel: an uncompressed ELF file.
    ///   - arguments: the kernel's command line.
    package func setBootSource(kernel: String, arguments: String = "") throws(FirecrackerError) {
        let body = ["kernel_image_path": kernel, "boot_args": arguments]
        try send(.PUT, "/boot-source", body, for: "set the kernel", within: timeout)
    }

    /// Sets vCPUs and memory; only possible before the start.
    package func setMachine(_ machine: Machine) throws(FirecrackerError) {
        try send(.PUT, "/machine-config", machine, for: "set processors and memory", within: timeout)
    }

    /// Adds a balloon device of size 0; only possible before the start.
    package func setBalloon() throws(FirecrackerError) {
        struct Balloon: Encodable {
            let amountMib = 0
            let deflateOnOom = false
        }
        try send(.PUT, "/balloon", Balloon(), for: "set the balloon", within: timeout)
    }

    /// Boots the microVM.
    package func start() throws(FirecrackerError) {
        try send(.PUT, "/actions", ["action_type": "InstanceStart"], for: "start the microVM", within: timeout)
    }

    private func get<Answer: Decodable>(_ path: String, for action: String) throws(FirecrackerError) -> Answer {
        let answer = try exchange(.GET, path, [], for: action, within: timeout)
        do {
            return try FirecrackerAPI.decoder.decode(Answer.self, from: Data(answer))
        } catch {
            // The answer tells a person more than the decoder's error does.
            let text = String(decoding: answer.prefix(200), as: UTF8.self)
            throw failure(action, "the answer is '\(text)'; check that Firecracker runs there")
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

    /// Makes a request and returns the body of a successful answer.
    ///
    /// - Throws: also for an answer with a status other than 2xx.
    private func exchange(
        _ method: HTTPMethod,
        _ path: String,
        _ body: [UInt8],
        for action: String,
        within timeout: Duration
    ) throws(FirecrackerError) -> [UInt8] {
        let answer: HTTPExchange.Answer
        do {
            let server = HTTPExchange.Server("Firecracker", at: .unix(path: socketPath))
            answer = try HTTPExchange.run(method, path, body, at: server, within: timeout)
        } catch {
            throw failure(action, error.reason, wasSent: error.wasSent)
        }
        guard !(200..<300).contains(answer.status) else { return answer.body }
        struct Fault: Decodable { let faultMessage: String }
        // A body that is not Firecracker's fault message is shown as it is.
        let fault = try? FirecrackerAPI.decoder.decode(Fault.self, from: Data(answer.body))
        let body = String(decoding: answer.body.prefix(200), as: UTF8.self)
        let reason = fault?.faultMessage ?? (body.isEmpty ? "no reason given" : body)
        let words = [answer.status.description, answer.reason].filter { !$0.isEmpty }.joined(separator: " ")
        throw failure(action, "\(words): \(reason)", status: answer.status)
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
