import Connections
import Foundation
import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import Testing

/// What a stranger can do who reaches an agent's ports.
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

    @Test("who gets as far as READY and hangs up does not end an agent that was started with --listen")
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

    @Test("who gets as far as READY and stays is thrown out by migrate_cancel")
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

    @Test("who begins to send devices and stops is dropped in time, and the next source is taken")
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

    /// An honest source finds the destination where it listened from the beginning.
    private func expectMigration(to destination: AgentProcess) throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let finished = try Executable.migrate(source, destination, "--verify", "--json")
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("a device state of 256 MiB that a stranger leaves behind is given back")
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
        "a flood of one message ends its connection, and leaves no memory behind",
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

    @Test("who connects to the far end of a benchmark and says nothing keeps no near end out")
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

    @Test("an agent that never answers is told of in time, and the others with it")
    func silentAgent() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let silent = try AgentProcess.destination(in: workspace)
        defer { silent.end() }
        // Stopped, the process keeps its socket, which the kernel goes on to accept for.
        kill(silent.running.pid, SIGSTOP)
        let finished = try Executable.pageferry("status", silent.socket, source.socket, seconds: 30)
        kill(silent.running.pid, SIGCONT)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains(silent.socket), "\(finished)")
        #expect(finished.output.contains("random"), "\(finished)")
    }

    @Test("an agent that greets and never answers a command is told of in time")
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

    @Test("a file to load that is none is refused at once")
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

/// Somebody who speaks the protocol as a source does, and has no workload.
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
        // What a built-in workload says of itself: the smallest that there is.
        try control.send(StrangerSource.regions().encode())
        guard case .hello(let answer) = try StrangerSource.next(from: control) else {
            throw TestFailure("the destination does not say HELLO")
        }
        lanes = try Lanes(to: address, as: answer, urgentLanes: answer.urgentLanes)
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

    /// Answers probes until the destination says READY.
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

    /// Answers whether anybody is there until the destination hangs up.
    ///
    /// - Returns: the last reason it gave.
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

    private static func next(from control: borrowing StreamSocket) throws -> ControlMessage? {
        while true {
            let message = try ControlLane.receive(from: control)
            if message != .ping(ControlLane.anybody) { return message }
        }
    }

    func hangUp() {
        for lane in lanes.urgent + [lanes.bulk] { lane.stream.shutdown() }
        control.shutdown()
        threads.join()
    }
}
