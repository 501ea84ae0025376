import Connections
import Identity
import LinuxSystem
import Logging
import PageProtocol
import Synchronization

/// A snapshot's server that accepts a guest and answers PINGs, but no request for a page.
final class SilentServer: Sendable {
    private let acceptor: LaneAcceptor
    private let connections: Connections

    /// Starts the server.
    ///
    /// - Parameter capabilities: what its HELLO says that it understands.
    init(capabilities: Capabilities = .snapshotProof) throws {
        let connections = Connections(capabilities)
        self.connections = connections
        acceptor = try LaneAcceptor(
            at: .tcp(host: "127.0.0.1", port: 0),
            logger: Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
        ) { connections.take($0.socket, $0.opening) }
    }

    /// The server's address: `HOST:PORT`.
    var address: String { String(acceptor.address.description.dropFirst("tcp:".count)) }

    func end() {
        acceptor.stop()
        connections.end()
    }

    /// All connections of clients.
    private final class Connections: Sendable {
        private let capabilities: Capabilities
        private let controls = Mutex<[ControlLane]>([])
        private let lanes = Mutex<[Handover<StreamSocket>]>([])

        init(_ capabilities: Capabilities) {
            self.capabilities = capabilities
        }

        func take(_ socket: Handover<StreamSocket>, _ opening: OpeningFrame) {
            switch opening {
            case .join: lanes.withLock { $0.append(socket) }
            case .hello(let hello): welcome(socket, hello)
            }
        }

        private func welcome(_ handover: Handover<StreamSocket>, _ hello: Hello) {
            let answer = Hello(
                role: .source,
                capabilities: capabilities,
                migration: hello.migration,
                instance: .random(),
                nonce: .random(),
                lease: .absent
            )
            do {
                guard let socket = handover.take() else { return }
                let control = try ControlLane(socket, peerTimeout: .seconds(60)) { [self] event in
                    if case .message(.slices, _) = event {
                        say(.snapshot(SnapshotIdentity(byteCount: 1 << 24, proof: .unknown(kind: 2, value: [1]))))
                    }
                }
                control.allowSilence()
                controls.withLock { $0.append(control) }
                say(.hello(answer))
            } catch {
                // The test sees that the server does not answer.
            }
        }

        private func say(_ message: ControlMessage) {
            // The message is inside its bounds, so encoding cannot fail.
            for control in controls.withLock(\.self) { try? control.send(message) }
        }

        func end() {
            for control in controls.withLock(\.self) { control.finish() }
            lanes.withLock { $0 = [] }
        }
    }
}
