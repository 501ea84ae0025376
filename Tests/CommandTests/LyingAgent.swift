import LinuxSystem
import Synchronization

/// A control socket that answers every command with the same text.
final class LyingAgent: Sendable {
    let socket: String
    private let thread: JoinedThread
    private let listener: Listening

    private final class Listening: Sendable {
        let listener: Listener
        init(_ path: String) throws { listener = try Listener(at: .unix(path: path)) }
    }

    /// - Parameter member: what the answer is: `return`, or `error`.
    init(in workspace: Workspace, answering answer: String, as member: String = "return") throws {
        socket = workspace.file("liar.sock")
        let listening = try Listening(socket)
        listener = listening
        thread = try JoinedThread(name: "liar") {
            while let client = try? listening.listener.accept() { try? LyingAgent.serve(client, answer, member) }
        }
    }

    func end() {
        listener.listener.shutdown()
    }

    private static func serve(_ client: consuming StreamSocket, _ answer: String, _ member: String) throws {
        let version = #"{"qemu":{"major":10,"minor":2,"micro":0},"package":""}"#
        try client.send(Array("{\"QMP\":{\"version\":\(version),\"capabilities\":[]}}\r\n".utf8))
        // The client numbers what it asks; the negotiation is 0.
        for number in 0... {
            guard try readLine(client) else { return }
            let said = number == 0 ? "\"return\":{}" : "\"\(member)\":\(answer)"
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
