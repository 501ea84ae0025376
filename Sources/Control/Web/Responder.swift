import Exposition
import Foundation
import HTTPTypes
import HummingbirdCore
import Logging
import NIOCore

/// Answers requests.
struct Responder: Sendable {
    private let server: WebServer
    private let hosts: HostCheck
    /// The answers for the files of the page, by their paths.
    private let files: [String: WebAnswer]

    init(server: WebServer, hosts: HostCheck) {
        self.server = server
        self.hosts = hosts
        files = Dictionary(
            uniqueKeysWithValues: PageFile.all.map {
                ($0.path, WebAnswer(.ok, $0.contentType, $0.bytes, isKept: true))
            }
        )
    }

    /// Answers a request over its connection; an event stream is answered for as long as its client stays.
    func answer(
        _ request: Request,
        _ writer: consuming ResponseWriter,
        _ channel: any Channel
    ) async throws {
        if let answer = await answer(request, from: channel.remoteAddress) {
            return try await Responder.write(answer, to: request, writer)
        }
        guard await server.streams.reserve() else {
            var full = WebAnswer.refusal(.serviceUnavailable, "too many live pages are open; close one of them")
            full.fields[.retryAfter] = "10"
            return try await Responder.write(full, to: request, writer)
        }
        do {
            let fields = WebAnswer.fields("text/event-stream")
            _ = try await writer.writeHead(HTTPResponse(status: .ok, headerFields: fields))
        } catch {
            await server.streams.giveBack()
            throw error
        }
        await server.streams.serve(channel)
    }

    private static func write(
        _ answer: WebAnswer,
        to request: Request,
        _ writer: consuming ResponseWriter
    ) async throws {
        var head = HTTPResponse(status: answer.status, headerFields: answer.fields)
        if answer.status != .noContent { head.headerFields[.contentLength] = "\(answer.body.readableBytes)" }
        let hasBody = request.method != .head && answer.body.readableBytes > 0
        try await writer.write(response: head, body: hasBody ? ResponseBody(byteBuffer: answer.body) : ResponseBody())
    }

    /// The answer to a request; nil for an event stream.
    private func answer(_ request: Request, from peer: NIOCore.SocketAddress?) async -> WebAnswer? {
        guard request.headers[.furtherHost] == nil else { return .text(.badRequest, "give one Host") }
        guard hosts.allows(request.head.authority) else {
            return .text(
                .misdirectedRequest,
                "this server does not know the name in Host; use an address, or start it with --http-host NAME"
            )
        }
        let path = String((request.head.path ?? "").prefix { $0 != "?" })
        switch request.method {
        case .get, .head:
            if path == WebServer.eventsPath, request.method == .get { return nil }
            return await page(path, accepting: request.headers[.accept])
        case .post: return await action(path, request, from: peer)
        default:
            if ActionPath(path) != nil { return .wrongMethod(allowing: "POST") }
            guard Responder.isKnown(path) || files[path] != nil else { return .text(.notFound, "there is no \(path)") }
            return .wrongMethod(allowing: "GET, HEAD")
        }
    }

    private static let pages: Set = ["/metrics", "/healthz", "/readyz", "/api/state", WebServer.eventsPath]

    private static func isKnown(_ path: String) -> Bool { pages.contains(path) }

    private func page(_ path: String, accepting types: String?) async -> WebAnswer {
        if let file = files[path] { return file }
        switch path {
        case "/metrics":
            let format = ExpositionFormat(accepting: types)
            return WebAnswer(.ok, format.contentType, await server.sampler.metrics(as: format))
        case "/healthz": return .text(.ok, "ok")
        case "/readyz":
            guard let reason = await server.observed.unreadiness() else { return .text(.ok, "ready") }
            return .text(.serviceUnavailable, reason)
        case "/api/state":
            return WebAnswer(.ok, "application/json", await server.sampler.wholeState())
        case WebServer.eventsPath: return .text(.ok, "an event stream")
        default:
            if ActionPath(path) != nil { return .wrongMethod(allowing: "POST") }
            return .text(.notFound, "there is no such page")
        }
    }
}

/// Actions.
extension Responder {
    private func action(
        _ path: String,
        _ request: Request,
        from peer: NIOCore.SocketAddress?
    ) async -> WebAnswer {
        guard let known = ActionPath(path) else {
            guard Responder.isKnown(path) || files[path] != nil else {
                return .refusal(.notFound, "there is no such action")
            }
            return .wrongMethod(allowing: "GET, HEAD")
        }
        if let refusal = refusal(of: request, from: peer) { return refusal }
        let body: ByteBuffer
        do {
            body = try await request.body.collect(upTo: server.settings.limits.bodyBytes)
        } catch is NIOTooManyBytesError {
            // The error says nothing else.
            return .refusal(.contentTooLarge, "the body is too long")
        } catch {
            // The client has left, or has sent no body of HTTP.
            return .refusal(.badRequest, "the body did not arrive")
        }
        guard let action = known.action(Data(body.readableBytesView)) else {
            return .refusal(.badRequest, "the body must be \(known.form)")
        }
        // The action continues if its client leaves.
        let task = Task { [server] () -> ActionRefused? in
            do throws(ActionRefused) {
                try await server.observed.act(action)
                return nil
            } catch {
                return error
            }
        }
        guard let refused = await task.value else {
            server.logger.notice("done by the live page: \(known.name)")
            return .done
        }
        return .refusal(refused.isUnknown ? .notFound : .conflict, refused.reason)
    }

    /// Why a client may not act; nil if it may.
    private func refusal(of request: Request, from peer: NIOCore.SocketAddress?) -> WebAnswer? {
        guard let token = server.settings.token else {
            return .refusal(.forbidden, "no action is allowed here: start this process with --http-control TOKENFILE")
        }
        // A page of another site cannot send the token either, but must not even try tokens. No script can set
        // Sec-Fetch-Site, which also holds behind a proxy that speaks TLS, where Origin begins with https.
        let site = request.headers[.fetchSite]
        let origin = request.headers[.origin]
        let isOwn = origin == nil || origin == "http://\(request.head.authority ?? "")"
        guard site == "same-origin" || isOwn && (site == nil || site == "none") else {
            return .refusal(.forbidden, "a page of another site cannot act here")
        }
        let header = request.headers[.authorization] ?? ""
        guard header.hasPrefix("Bearer "), token.matches(String(header.dropFirst("Bearer ".count))) else {
            // Each connection comes from another port. A local socket has no host.
            let host = peer?.ipAddress ?? "a process of this host"
            server.logger.warning(
                "\(host) has sent a wrong token to the live page",
                metadata: ["lasting": "wrong token from \(host)"]
            )
            var answer = WebAnswer.refusal(.unauthorized, "the token is wrong")
            answer.fields[.wwwAuthenticate] = "Bearer"
            return answer
        }
        let type = (request.headers[.contentType] ?? "").prefix { $0 != ";" }.lowercased()
        guard type == "application/json" else {
            return .refusal(.unsupportedMediaType, "the body must be of the type application/json")
        }
        return nil
    }
}
