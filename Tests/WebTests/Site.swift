import HTTPClient
import LinuxSystem
import LogLines
import Logging
import Web

/// A server on a port of its own, with what it shows.
struct Site {
    static let token = "a-token-of-the-tests"
    let stub: ObservedStub
    let server: WebServer
    let address: SocketAddress
    let log: LogLines

    func get(
        _ path: String,
        _ method: String = "GET",
        host: String? = "localhost",
        fields: [String: String] = [:],
        body: String? = nil
    ) throws -> HTTPClient.Reply? {
        try HTTPClient.request(method, path, at: address, host: host, fields: fields, body: body)
    }

    /// The fields of a request that may act.
    static let allowed = ["Authorization": "Bearer \(token)", "Content-Type": "application/json"]

    /// Sends an action.
    func act(
        _ path: String,
        _ body: String = "{}",
        fields: [String: String] = Site.allowed
    ) throws -> HTTPClient.Reply? {
        try get(path, "POST", fields: fields, body: body)
    }
}

/// Runs a test with a server.
func withSite(
    control: Bool = true,
    at address: SocketAddress = .tcp(host: "127.0.0.1", port: 0),
    changing change: (inout WebServer.Settings) -> Void = { _ in },
    _ body: (Site) async throws -> Void
) async throws {
    let stub = ObservedStub()
    var settings = WebServer.Settings()
    settings.release = "0.1.0"
    settings.limits.tick = .milliseconds(20)
    if control { settings.token = WebToken(Site.token) }
    change(&settings)
    let log = LogLines()
    let server = WebServer(stub, settings: settings, logger: log.logger)
    let bound = try await server.listen(at: address)
    do {
        try await body(Site(stub: stub, server: server, address: bound, log: log))
    } catch {
        await server.end()
        throw error
    }
    await server.end()
}
