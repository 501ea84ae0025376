import Connections
import LinuxSystem
import Logging
import PageProtocol
import Synchronization

/// A snapshot's server that takes a guest, is there when it is asked, and answers no request for a page.
final class SilentServer: Sendable {
    private let acceptor: LaneAcceptor
    private let connections = Connections()

    init() throws {
        acceptor = try LaneAcceptor(
            at: .tcp(host: "127.0.0.1", port: 0),
            logger: Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
        ) { [connections] in connections.take($0.socket, $0.opening) }
    }

    /// Where it listens: `HOST:PORT`.
    var address: String { String(acceptor.address.description.dropFirst("tcp:".count)) }

    func end() {
        acceptor.stop()
        connections.end()
    }

    /// All that has connected.
    private final class Connections: Sendable {
        private let controls = Mutex<[ControlLane]>([])
        private let lanes = Mutex<[Handover<StreamSocket>]>([])

        func take(_ socket: Handover<StreamSocket>, _ opening: OpeningFrame) {
            switch opening {
            case .join: lanes.withLock { $0.append(socket) }
            case .hello(let hello): welcome(socket, hello)
            }
        }

        private func welcome(_ handover: Handover<StreamSocket>, _ hello: Hello) {
            let answer = Hello(
                role: .source,
                capabilities: [],
                migration: hello.migration,
                instance: .random(),
                nonce: .random(),
                lease: .absent
            )
            do {
                guard let socket = handover.take() else { return }
                let control = try ControlLane(socket, peerTimeout: .seconds(60)) { [self] event in
                    if case .message(.slices, _) = event {
                        say(.snapshot(SnapshotIdentity(byteCount: 1 << 24, modified: 1)))
                    }
                }
                control.allowSilence()
                controls.withLock { $0.append(control) }
                say(.hello(answer))
            } catch {
                // The test sees that nobody has answered.
            }
        }

        private func say(_ message: ControlMessage) {
            // Inside its bounds.
            for control in controls.withLock(\.self) { try? control.send(message) }
        }

        func end() {
            for control in controls.withLock(\.self) { control.finish() }
            lanes.withLock { $0 = [] }
        }
    }
}
