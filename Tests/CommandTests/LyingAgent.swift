import LinuxSystem
import Synchronization

/// A control socket that answers every command with given texts, whatever the command is.
final class LyingAgent: Sendable {
    /// An answer: its member, `return` or `error`, and that member's value.
    typealias Answer = (member: String, value: String)

    let socket: String
    private let thread: JoinedThread
    private let listener: Listening

    private final class Listening: Sendable {
        let listener: Listener
        init(_ path: String) throws { listener = try Listener(at: .unix(path: path)) }
    }

    /// - Parameter member: the member of the answer: `return` or `error`.
    convenience init(in workspace: Workspace, answering answer: String, as member: String = "return") throws {
        try self.init(at: workspace.file("liar.sock"), answering: [(member, answer)])
    }

    /// - Parameter answers: the answers to a client's commands in order; the last one answers all further commands.
    init(at socket: String, answering answers: [Answer]) throws {
        self.socket = socket
        let listening = try Listening(socket)
        listener = listening
        thread = try JoinedThread(name: "liar") {
            while let client = try? listening.listener.accept() { try? LyingAgent.serve(client, answers) }
        }
    }

    func end() {
        listener.listener.shutdown()
    }

    private static func serve(_ client: consuming StreamSocket, _ answers: [Answer]) throws {
        let version = #"{"qemu":{"major":10,"minor":2,"micro":0},"package":""}"#
        try client.send(Array("{\"QMP\":{\"version\":\(version),\"capabilities\":[]}}\r\n".utf8))
        // The client numbers its commands; the negotiation has 0.
        for number in 0... {
            guard try readLine(client) else { return }
            let answer = number == 0 ? ("return", "{}") : answers[min(number, answers.count) - 1]
            let said = "\"\(answer.0)\":\(answer.1)"
            try client.send(Array("{\(said),\"id\":\(number)}\r\n".utf8))
        }
    }

    private static func readLine(_ client: borrowing StreamSocket) throws -> Bool {
        var byte: [UInt8] = [0]
        while byte[0] != 10 {
            guard try byte.withUnsafeMutableBytes({ try client.receive(into: $0) }) == 1 else { return false }
        }
        return true
    }
}
