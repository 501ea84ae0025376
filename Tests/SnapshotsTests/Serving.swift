import LinuxSystem
import LogLines
import Logging
import Snapshots
import Synchronization

/// A server of a file that runs beside a test.
final class Serving: Sendable {
    let server: SnapshotServer
    let log = LogLines()

    /// Serves a file while `body` runs, and then tells the server to exit.
    ///
    /// - Returns: the change of the file, if that ended the server.
    @discardableResult
    static func of(
        _ path: String,
        peerTimeout: Duration = .seconds(30),
        isProvedFully: Bool = false,
        connectionLimit: Int? = nil,
        _ body: (Serving) async throws -> Void
    ) async throws -> FileChanged? {
        let serving = try Serving(path, peerTimeout, isProvedFully, connectionLimit)
        let running = Task { () -> FileChanged? in
            do throws(FileChanged) {
                try await serving.server.run()
                return nil
            } catch {
                return error
            }
        }
        do {
            try await body(serving)
        } catch {
            serving.server.end()
            _ = await running.value
            throw error
        }
        serving.server.end()
        return await running.value
    }

    private init(_ path: String, _ peerTimeout: Duration, _ isProvedFully: Bool, _ connectionLimit: Int?) throws {
        server = try SnapshotServer(
            SnapshotFile(path, isProvedFully: isProvedFully),
            at: .tcp(host: "127.0.0.1", port: 0),
            peerTimeout: peerTimeout,
            connectionLimit: connectionLimit,
            logger: log.logger
        )
    }

    var address: SocketAddress { server.address }
}
