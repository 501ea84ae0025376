import LinuxSystem

/// An API socket that answers as Firecracker does, with values that a test chooses.
final class LyingFirecracker: Sendable {
    let socket: String
    private let listening: Listening
    private let thread: JoinedThread

    private final class Listening: Sendable {
        let listener: Listener
        init(_ path: String) throws { listener = try Listener(at: .unix(path: path)) }
    }

    /// - Parameters:
    ///   - memory: the answer for the memory in MiB.
    ///   - fault: a fault message in JSON that answers every request instead.
    init(in workspace: Workspace, memory: String = "128", fault: String? = nil) throws {
        socket = workspace.file("firecracker.sock")
        let listening = try Listening(socket)
        self.listening = listening
        thread = try JoinedThread(name: "firecracker") {
            while let client = try? listening.listener.accept() {
                try? LyingFirecracker.serve(client) { path in
                    if let fault { return (400, "{\"fault_message\":\(fault)}") }
                    return switch path {
                    case "/version": (200, #"{"firecracker_version":"1.12.1"}"#)
                    case "/vm/config": (200, #"{"machine-config":{"vcpu_count":1,"mem_size_mib":\#(memory)}}"#)
                    default: (200, #"{"id":"anonymous","state":"Running"}"#)
                    }
                }
            }
        }
    }

    func end() {
        listening.listener.shutdown()
    }

    private static func serve(_ client: consuming StreamSocket, _ answer: (String) -> (Int, String)) throws {
        var request: [UInt8] = []
        var byte: [UInt8] = [0]
        while !request.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            guard try byte.withUnsafeMutableBytes({ try client.receive(into: $0) }) == 1 else { return }
            request += byte
        }
        let path = String(decoding: request, as: UTF8.self).split(separator: " ").dropFirst().first.map(String.init)
        let (status, body) = answer(path ?? "")
        let head = "HTTP/1.1 \(status) Said\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
        try client.send(Array((head + body).utf8))
    }
}
