import Connections
import Foundation
import Glibc
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import Testing

/// What a stranger can do that reaches an agent's ports.
@Suite("Strangers", .ownThread, .timeLimit(.minutes(2)))
struct StrangerTests {
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
    }

    private func listeningAddress(of agent: AgentProcess) throws -> SocketAddress {
        let line = try agent.running.line(holding: "tcp:")
        guard let word = line.split(separator: " ").last(where: { $0.hasPrefix("tcp:") }) else {
            throw TestFailure("no address in '\(line)'")
        }
        return try SocketAddress(String(word))
    }

    private func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    @Test("that hang up after READY do not end an agent that was started with --listen")
    func hangsUp() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try listeningAddress(of: destination)
        for _ in 0..<3 {
            let stranger = try StrangerSource(to: address)
            try stranger.becomeReady()
            try wait(destination, for: "active")
            stranger.hangUp()
            try wait(destination, for: "failed")
            #expect(try destination.qmp("query-migrate").contains("closed the connection"))
        }
        try expectMigration(to: destination)
    }

    @Test("that stay after READY are disconnected by migrate_cancel")
    func squats() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let stranger = try StrangerSource(to: listeningAddress(of: destination))
        try stranger.becomeReady()
        try wait(destination, for: "active")
        let cancelled = try Executable.pageferry("cancel", destination.socket)
        #expect(cancelled.status == 0, "\(cancelled)")
        try wait(destination, for: "cancelled")
        #expect(stranger.untilHangUp()?.contains("cancelled") == true)
        try expectMigration(to: destination)
    }

    @Test("that stop in the middle of the device state are dropped in time, and the next source is accepted")
    func stalls() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let stranger = try StrangerSource(to: listeningAddress(of: destination))
        try stranger.becomeReady()
        try stranger.say(.listen)
        try wait(destination, for: "postcopy-device")
        #expect(stranger.untilHangUp()?.contains("device state") == true)
        try expectMigration(to: destination)
    }

    /// Checks that an honest source can migrate to the destination at its original address.
    private func expectMigration(to destination: AgentProcess) throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let finished = try Executable.migrate(source, destination, "--verify", "--json")
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("that leave 256 MiB of device state behind cost no memory in the end")
    func deviceState() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try listeningAddress(of: destination)
        let before = try destination.residentBytes()
        for _ in 0..<2 {
            let stranger = try StrangerSource(to: address)
            try stranger.becomeReady()
            try stranger.say(.listen)
            try stranger.say(.devices([DeviceEntry(name: "large", byteCount: 256 << 20)]))
            let piece = try ControlMessage.deviceData([UInt8](repeating: 1, count: 1 << 20)).encode()
            for _ in 0..<255 { try stranger.control.send(piece) }
            stranger.hangUp()
            try wait(destination, for: "failed")
        }
        let deadline = Date(timeIntervalSinceNow: 10)
        while try destination.residentBytes() > before + (32 << 20) {
            guard Date() < deadline else {
                throw TestFailure("\(try destination.residentBytes()) bytes are kept, \(before) before")
            }
        }
    }

    @Test(
        "that flood a destination with one message lose their connection and leave no memory behind",
        arguments: [ControlMessage.complete, .ping(ControlLane.anybody)]
    )
    func flood(of message: ControlMessage) throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let stranger = try StrangerSource(to: listeningAddress(of: destination))
        try stranger.becomeReady()
        try stranger.say(.listen)
        let before = try destination.residentBytes()
        let many = Array(repeatElement(try message.encode(), count: 10_000).joined())
        var isOver = false
        for _ in 0..<1000 where !isOver { isOver = (try? stranger.control.send(many)) == nil }
        #expect(isOver)
        #expect(try destination.residentBytes() < before + (32 << 20))
        try wait(destination, for: "failed")
        #expect(try destination.qmp("query-migrate").contains("messages"))
    }

    /// Messages in states in which a source never sends them, except CANCEL after LISTEN, which a source sends once.
    private static let wrong: [(state: String, message: ControlMessage)] = [
        ("READY", .cancel(token: 7)), ("READY", .run(token: 7, epoch: .max)), ("READY", .complete),
        ("READY", .running(token: 7)), ("READY", .startFailed(token: 7, reason: "no")), ("READY", .cancelled(token: 7)),
        ("LISTEN", .cancel(token: 7)), ("LISTEN", .run(token: 0, epoch: 0)), ("LISTEN", .startRequest),
        ("LISTEN", .bye), ("LISTEN", .completeAck), ("LISTEN", .listen),
    ]

    @Test("that flood in a wrong state get one answer and few log lines, and the next source is accepted")
    func wrongStates() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try listeningAddress(of: destination)
        for (state, message) in Self.wrong {
            let stranger = try StrangerSource(to: address)
            try stranger.becomeReady()
            if state == "LISTEN" { try stranger.say(.listen) }
            let lines = destination.running.errorText.split(separator: "\n").count
            stranger.flood(message)
            let answers = stranger.answersUntilHangUp()
            // CANCEL after LISTEN is granted, and then the link is closed with its reason.
            let isGranted = state == "LISTEN" && message.kind == .cancel
            #expect(answers.count <= (isGranted ? 2 : 1), "\(state), \(message.kind): \(answers)")
            let more = destination.running.errorText.split(separator: "\n").count - lines
            #expect(more < 12, "\(state), \(message.kind): \(more) lines")
            stranger.hangUp()
            try wait(destination, for: isGranted ? "cancelled" : "failed")
        }
        try expectMigration(to: destination)
    }

    @Test(
        "that flood a source with unrequested answers are left, and the workload continues",
        arguments: [
            ControlMessage.running(token: 7), .startFailed(token: 7, reason: "no"), .cancelled(token: 7), .startRequest,
            .completeAck, .pong(9), .cancel(token: 7), .run(token: 7, epoch: .max),
        ]
    )
    func floodsSource(message: ControlMessage) throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let uri = listener.address.description
        let answer = try source.qmp(#"{"execute":"migrate","arguments":{"uri":"\#(uri)"}}"#)
        #expect(answer.contains("return"), "\(answer)")
        guard let socket = try listener.accept() else { throw TestFailure("nobody has connected") }
        try socket.setReceiveTimeout(seconds: 30)
        guard case .hello(var hello) = try ControlLane.receive(from: socket) else { throw TestFailure("no HELLO") }
        hello.role = .destination
        hello.instance = .random()
        hello.nonce = .random()
        try socket.send(ControlMessage.hello(hello).encode())
        let many = Array(repeatElement(try message.encode(), count: 10_000).joined())
        var isOver = false
        for _ in 0..<100 where !isOver { isOver = (try? socket.send(many)) == nil }
        #expect(isOver)
        try wait(source, for: "failed")
        #expect(try source.qmp("query-status").contains("\"running\":true"))
        let lines = source.running.errorText.split(separator: "\n")
        #expect(lines.count < 20, "\(lines)")
    }

    @Test("that connect to the far end of a benchmark and stay silent keep no near end out")
    func benchmark() throws {
        let far = try Running(Executable.pageferry, ["bench", "--listen", "127.0.0.1:0"])
        defer { far.end() }
        let address = String(try far.line(holding: "ready").split(separator: " ").last ?? "")
        let idle = try (0..<40).map { _ in SharedSocket(try StreamSocket(connectingTo: SocketAddress(address))) }
        let begin = Date()
        let near = try Executable.pageferry(
            "bench",
            "--connect",
            address,
            "--rounds",
            "1",
            "--faults",
            "16",
            "--memory",
            "1MiB",
            "--json"
        )
        #expect(near.status == 0, "\(near)")
        #expect(Date().timeIntervalSince(begin) < 60)
        withExtendedLifetime(idle) {}
    }

    @Test("status soon reports that an agent never answers, and reports the other agents too")
    func silentAgent() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let silent = try AgentProcess.destination(in: workspace)
        defer { silent.end() }
        // A stopped process keeps its socket, and the kernel still accepts connections for it.
        kill(silent.running.pid, SIGSTOP)
        let finished = try Executable.pageferry("status", silent.socket, source.socket, seconds: 30)
        kill(silent.running.pid, SIGCONT)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains(silent.socket), "\(finished)")
        #expect(finished.output.contains("random"), "\(finished)")
    }

    @Test("status soon reports that an agent greets but never answers a command")
    func speechlessAgent() throws {
        let path = workspace.file("speechless.sock")
        let listener = try Listener(at: .unix(path: path))
        let status = try Running(Executable.pageferry, ["status", path])
        defer { status.end() }
        guard let socket = try listener.accept() else { throw TestFailure("nobody has connected") }
        let greeting = #"{"QMP":{"version":{"qemu":{"major":9,"minor":0,"micro":0},"package":""},"capabilities":[]}}"#
        try socket.send(Array("\(greeting)\r\n{\"return\":{}}\r\n".utf8))
        let finished = try status.finish(seconds: 30)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains("has not answered"), "\(finished)")
    }

    @Test("a path to load that is not a regular file is refused at once")
    func loadsPipe() throws {
        let pipe = workspace.file("pipe")
        #expect(mkfifo(pipe, 0o600) == 0)
        let finished = try Executable.pageferry(
            "demo",
            "--workload",
            "kv",
            "--load",
            pipe,
            "--memory",
            "1MiB",
            seconds: 20
        )
        #expect(finished.status != 0, "\(finished)")
        #expect(finished.errors.contains("give a regular file"), "\(finished)")
    }
}

extension AgentProcess {
    /// Bytes of memory that the agent's process holds.
    func residentBytes() throws -> Int {
        let text = try String(contentsOfFile: "/proc/\(running.pid)/statm", encoding: .utf8)
        guard let pages = text.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw TestFailure("no resident pages in '\(text)'")
        }
        return pages * 4096
    }
}

/// A client that speaks the protocol as a source, but has no workload.
final class StrangerSource: Sendable {
    let control: StreamSocket
    private let address: SocketAddress
    private let migration = MigrationID.random()
    private let threads = ThreadGroup()
    private let lanes: Lanes

    init(to address: SocketAddress) throws {
        self.address = address
        control = try StreamSocket(connectingTo: address)
        try control.setReceiveTimeout(seconds: 40)
        let hello = Hello(
            role: .source,
            capabilities: .startResult,
            migration: migration,
            instance: .random(),
            nonce: .zero,
            lease: .absent
        )
        try control.send(ControlMessage.hello(hello).encode())
        // The announcement of the smallest built-in workload.
        try control.send(StrangerSource.regions().encode())
        guard case .hello(let answer) = try StrangerSource.next(from: control) else {
            throw TestFailure("the destination does not say HELLO")
        }
        lanes = try Lanes(
            to: address,
            as: answer,
            urgentLanes: answer.urgentLanes,
            bulkLanes: 1,
            peerTimeout: .seconds(5)
        )
    }

    deinit {
        hangUp()
    }

    private static func regions() throws -> ControlMessage {
        let configuration = #"""
            {"devices":[],"hasLedger":true,"memoryBytes":1048576,"pageSize":4096,"pattern":"random","regionCount":1,\#
            "seed":1,"thinkTime":0,"threads":1,"writeFraction":0.2}
            """#
        let shape = RegionShape(name: "memory-0", guestAddress: 0, pageSize: 4096, pageCount: 256)
        return .regions(
            guest: GuestAnnouncement(kind: "built-in", configuration: Array(configuration.utf8), regions: [shape])
        )
    }

    /// Answers probes until the destination sends READY.
    func becomeReady() throws {
        try threads.run("probes") { [lanes] in
            var frame = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
            var reply = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount + Int(Wire.probeReplyBytes))
            reply.withUnsafeMutableBytes { if let base = $0.baseAddress { LaneFrame.probeReply.encode(into: base) } }
            let urgent = lanes.urgent[0]
            while (try? frame.withUnsafeMutableBytes { try urgent.stream.receive(exactly: $0) }) == frame.count {
                guard (try? urgent.stream.send(reply)) != nil else { return }
            }
        }
        let answer = try StrangerSource.next(from: control)
        guard answer == .ready else { throw TestFailure("not READY but \(String(describing: answer))") }
    }

    func say(_ message: ControlMessage) throws {
        try control.send(message.encode())
    }

    /// Answers PINGs until the destination hangs up.
    ///
    /// - Returns: the last reason that the destination gave.
    func untilHangUp() -> String? {
        var reason: String?
        while let message = try? ControlLane.receive(from: control) {
            switch message {
            case .refused(let text), .failure(let text): reason = text
            case .ping(ControlLane.anybody): try? say(.pong(ControlLane.anybody))
            default: continue
            }
        }
        return reason
    }

    /// Sends a message again and again until the destination closes the connection.
    func flood(_ message: ControlMessage) {
        guard let frame = try? message.encode() else { return }
        let many = Array(repeatElement(frame, count: 1000).joined())
        for _ in 0..<100 { guard (try? control.send(many)) != nil else { return } }
    }

    /// The messages, other than PINGs, that the destination sends before it hangs up.
    func answersUntilHangUp() -> [ControlMessage] {
        var answers: [ControlMessage] = []
        while let message = try? ControlLane.receive(from: control) {
            if message != .ping(ControlLane.anybody) { answers.append(message) }
        }
        return answers
    }

    private static func next(from control: borrowing StreamSocket) throws -> ControlMessage? {
        while true {
            let message = try ControlLane.receive(from: control)
            if message != .ping(ControlLane.anybody) { return message }
        }
    }

    func hangUp() {
        for lane in lanes.urgent + lanes.bulk { lane.stream.shutdown() }
        control.shutdown()
        threads.join()
    }
}
