import ArgumentParser
import Exposition
import Foundation
import LinuxSystem
import Logging
import PageProtocol
import Web

/// The options of the live page and the metrics.
struct HTTPOptions: ParsableArguments, Encodable {
    @Option(
        help: ArgumentHelp(
            "Serve a live page, metrics for Prometheus at /metrics, and /healthz and /readyz at this address (default: "
                + "none).",
            valueName: "host:port|unix:path"
        ),
        transform: readAddress
    )
    var http: SocketAddress?

    @Option(
        help: ArgumentHelp(
            "Let those act on the live page who know the token in this file, one line of 16 to 512 characters (default: "
                + "nobody may act).",
            valueName: "file"
        )
    )
    var httpControl: String?

    @Option(
        help: ArgumentHelp(
            "Another name of this host by which clients may reach the live page; may be repeated. Its addresses, and the "
                + "name in --http, always work.",
            valueName: "name"
        )
    )
    var httpHost: [String] = []

    func validate() throws {
        guard http != nil || httpControl == nil && httpHost.isEmpty else {
            throw ValidationError("--http-control and --http-host are for the live page: add --http, or drop them")
        }
        if case .unix = http, !httpHost.isEmpty {
            throw ValidationError(
                "--http-host is for a live page at a port, and --http names a Unix socket: drop one of the two"
            )
        }
        for name in httpHost where name.isEmpty || !name.utf8.allSatisfy(HTTPOptions.isPartOfName) {
            throw ValidationError("--http-host: '\(name)' is not the name of a host; write it without a port")
        }
    }

    private static func isPartOfName(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || byte == 45 || byte == 46
    }

    /// Refuses an address that other hosts can reach, unless the operator allows that.
    ///
    /// - Parameter isAllowed: whether `--insecure` is given.
    func requireLocal(unless isAllowed: Bool) throws {
        guard let http else { return }
        try pageferry.requireLocal(http, unless: isAllowed, ", and everyone who can connect can see what happens here")
    }

    /// Serves the live page of a process.
    ///
    /// - Parameters:
    ///   - observed: the process.
    ///   - logger: receives messages about the server.
    /// - Returns: the server, and where it can be reached; nil without `--http`.
    func serve(_ observed: any Observed, _ logger: Logger) async throws -> (server: WebServer, address: String)? {
        guard let http else { return nil }
        var settings = WebServer.Settings()
        settings.release = Release.number
        settings.pageProtocol = Int(Wire.version)
        settings.host = ProcessInfo.processInfo.hostName
        settings.names = httpHost
        settings.token = try httpControl.map { try HTTPOptions.token(in: $0) }
        settings.log = { LogRing.shared.log }
        let server = WebServer(observed, settings: settings, logger: logger)
        let bound = try await server.listen(at: http)
        if !bound.isLocal {
            let what = settings.token == nil ? "see what happens here" : "read the token and act with it"
            logger.warning("\(bound) is not encrypted: everyone who can connect or listen to the network can \(what)")
        }
        switch bound {
        case .tcp: return (server, "http://\(bound.description.dropFirst("tcp:".count))/")
        case .unix: return (server, "\(bound)")
        }
    }

    /// Reads the token of a file that only its owner, or its group, may read.
    private static func token(in path: String) throws(Failure) -> WebToken {
        let text: String
        do throws(SystemError) {
            text = String(decoding: try WholeFile.read(path, atMost: 4096, isSecret: true), as: UTF8.self)
        } catch {
            throw Failure("--http-control: \(error)")
        }
        guard let token = WebToken(text.trimmingCharacters(in: .whitespacesAndNewlines)) else {
            throw Failure(
                "--http-control: \(path) does not hold a token: one line of 16 to 512 visible ASCII characters; make one "
                    + "with: (umask 077; head -c 24 /dev/urandom | base64 > \(path))"
            )
        }
        return token
    }
}
