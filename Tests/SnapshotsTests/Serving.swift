import LinuxSystem
import LogLines
import Logging
import Snapshots
import Synchronization

/// A server of a file that runs beside a test.
final class Serving: Sendable {
    let server: SnapshotServer
    let log = LogLines()

    /// Serves a file while `body` runs; then it is told to end.
    ///
    /// - Returns: what happened to the file, if that ended it.
    @discardableResult
    static func of(
        _ path: String,
        peerTimeout: Duration = .seconds(30),
        _ body: (Serving) async throws -> Void
    ) async throws -> FileChanged? {
        let serving = try Serving(path, peerTimeout)
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

    private init(_ path: String, _ peerTimeout: Duration) throws {
        server = try SnapshotServer(
            MappedFile(path),
            at: .tcp(host: "127.0.0.1", port: 0),
            peerTimeout: peerTimeout,
            logger: log.logger
        )
    }

    var address: SocketAddress { server.address }
}
