import Firecracker
import Foundation
@_spi(Controller) import Guest
import LinuxSystem
import Logging
import TestProcess
import Testing

@testable import MicroVMGuest

/// The handling of a microVM whose processors do not stop or start as they should.
///
/// A Python program stands in for Firecracker.
@Suite("A microVM's processors", .timeLimit(.minutes(1)))
struct ProcessorTests {
    private func microVM(_ api: FakeAPI, hasCome: Bool) throws -> MicroVM {
        let configuration = try MicroVMConfiguration(firecracker: "1.12.1", machine: .init(memoryMiB: 128))
        let host = try FirecrackerHost(at: api.socketPath, logger: Logger(label: "test"))
        guard hasCome else { return try MicroVM(configuration, host) }
        return try MicroVM(configuration, host, onMemory: { _ in })
    }

    private func run(_ microVM: MicroVM) throws { _ = try microVM.run(RunPermit(.inPlace())) }

    @Test("are killed if the first start is refused, since some may run")
    func startRefused() throws {
        let api = try FakeAPI(refusing: 1)
        defer { api.end() }
        let microVM = try microVM(api, hasCome: true)
        // The refused start counts as a start, so that the source does not take the workload back.
        try run(microVM)
        #expect(!microVM.activity.isRunning)
        #expect(try api.waitForEnd() == SIGKILL)
    }

    @Test("have executed nothing if no process accepts the request, or if the process has ended")
    func nobody() throws {
        let api = try FakeAPI(refusing: 0)
        defer { api.end() }
        let microVM = try microVM(api, hasCome: true)
        try FileManager.default.removeItem(atPath: api.socketPath)
        #expect(throws: (any Error).self) { try run(microVM) }
        #expect(api.isRunning)
        api.end()
        let error = #expect(throws: MicroVMError.self) { try run(microVM) }
        #expect("\(error, default: "")".hasSuffix("has ended"))
    }

    @Test("resume where they may, even if the first attempt is refused")
    func resumeRepeated() throws {
        let api = try FakeAPI(refusing: 3)
        defer { api.end() }
        let microVM = try microVM(api, hasCome: false)
        try run(microVM)
        #expect(microVM.activity.isRunning)
        api.end()
        #expect(api.requests == ["Resumed", "Resumed", "Resumed", "Resumed"])
    }

    @Test("all resume if some did not stop")
    func pauseRefused() throws {
        let api = try FakeAPI(refusing: 0)
        defer { api.end() }
        let microVM = try microVM(api, hasCome: false)
        try run(microVM)
        try api.refuse("Paused")
        #expect(throws: (any Error).self) { try microVM.stop() }
        #expect(microVM.activity.isRunning)
        api.end()
        #expect(api.requests == ["Resumed", "Paused", "Resumed"])
    }

    @Test("belong to one agent at a time, which leaves no file behind")
    func one() throws {
        let api = try FakeAPI(refusing: 0)
        defer { api.end() }
        let folder = URL(fileURLWithPath: api.socketPath).deletingLastPathComponent().path
        do {
            let microVM = try microVM(api, hasCome: false)
            let error = #expect(throws: MicroVMError.self) { try self.microVM(api, hasCome: false) }
            #expect("\(error, default: "")".contains("an agent must have the microVM at \(api.socketPath) for itself"))
            withExtendedLifetime(microVM) {}
        }
        _ = try microVM(api, hasCome: false)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["api.sock"])
    }
}

/// A process that answers at a Unix socket as Firecracker does.
private final class FakeAPI {
    let socketPath: String
    private let folder: String
    private let process: TestProcess
    private let output: TestPipe
    private let input: TestPipe
    private(set) var requests: [String] = []

    private static let program = """
        import json, os, selectors, socket, sys
        refusals, refused = int(sys.argv[2]), None
        s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8)
        print("listening", flush=True)
        while True:
            c, _ = s.accept()
            data = b""
            while b"\\r\\n\\r\\n" not in data or b"}" not in data:
                piece = c.recv(4096)
                if not piece: break
                data += piece
            if not data: continue
            state = json.loads(data.split(b"\\r\\n\\r\\n")[1])["state"]
            print(state, flush=True)
            os.set_blocking(0, False)
            refused = (sys.stdin.readline() or "").strip() or refused
            if refusals > 0 or refused == state:
                refusals -= 1; refused = None if refused == state else refused
                body = b'{"fault_message":"vCPUs are slow"}'
                c.sendall(b"HTTP/1.1 400 Bad Request\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
            else:
                c.sendall(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
        """

    init(refusing count: Int) throws {
        folder = "/tmp/pf-api-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        socketPath = "\(folder)/api.sock"
        (input, output) = (try TestPipe(), try TestPipe())
        process = try TestProcess(
            "/usr/bin/python3",
            ["-c", FakeAPI.program, socketPath, "\(count)"],
            input: input.reader,
            output: output.writer
        )
        output.closeWriter()
        var line = ""
        while !line.hasSuffix("\n") { line += String(decoding: try #require(output.read()), as: UTF8.self) }
    }

    deinit {
        end()
        try? FileManager.default.removeItem(atPath: folder)
    }

    var isRunning: Bool { process.end == nil }

    /// Makes the process refuse the next request for this state.
    func refuse(_ state: String) throws {
        let line = Array("\(state)\n".utf8)
        try #require(write(input.writer, line, line.count) == line.count)
    }

    func waitForEnd() throws -> Int32 { try #require(process.wait()).status }

    func end() {
        process.kill()
        var rest: [UInt8] = []
        while let piece = output.read() { rest += piece }
        requests += String(decoding: rest, as: UTF8.self).split(separator: "\n").map(String.init)
    }
}
