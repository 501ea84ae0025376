import ArgumentParser
import Foundation
import HTTPRequests
import Identity
import LinuxSystem
import Orchestration
import Telemetry

/// Where `top` looks: a control socket, or a live page.
enum TopAddress: Hashable, Sendable, CustomStringConvertible {
    case qmp(SocketAddress)
    case http(SocketAddress)

    /// Reads an address of the command line.
    init(argument text: String) throws {
        guard text.hasPrefix("http:") else {
            self = .qmp(try readControl(text))
            return
        }
        var rest = text.dropFirst("http:".count)
        if rest.hasPrefix("//") {
            // The address of a page, as a command prints it when it is ready.
            rest = rest.dropFirst(2)
            if rest.hasSuffix("/") { rest = rest.dropLast() }
        }
        let address = try readAddress(String(rest))
        try requireDialable(address)
        try requirePort(address)
        self = .http(address)
    }

    var description: String {
        switch self {
        case .qmp(let address): "\(address)"
        case .http(.tcp(let host, let port)): "http:\(host.contains(":") ? "[\(host)]" : host):\(port)"
        case .http(let address): "http:\(address)"
        }
    }
}

/// What a look at one address has found.
struct TopLook: Sendable {
    /// One line of the table.
    struct Row: Sendable {
        let name: String
        var state = ""
        /// The pages that are here, or were sent, of all pages; nil if pages are not counted.
        var pages: (here: Int, total: Int)?
        /// The pages that have arrived in a second since the look before; nil at the first look.
        var rate: Double?
        var waiting = 0
        /// The median and the 99th percentile of the waits, in microseconds; nil without a wait.
        var waits: (p50: Double, p99: Double)?
        var note = ""
    }

    let address: TopAddress
    var rows: [Row] = []
    /// Why the address does not answer; nil if it does.
    var error: String?
}

/// An agent, a handler or a server at which `top` looks again and again.
actor TopSource {
    private let address: TopAddress
    /// The connection to a control socket, kept from one look to the next.
    private var agent: AgentClient?
    /// The pages of each row at the look before, and when that was.
    private var before: (pages: [String: Int], at: UInt64)?

    /// How long an address may take to answer.
    private static let patience = Duration.seconds(3)

    init(_ address: TopAddress) { self.address = address }

    /// Looks at the address once.
    func look() async -> TopLook {
        var look = TopLook(address: address)
        do {
            switch address {
            case .qmp(let socket): look.rows = [try await ask(socket)]
            case .http(let page):
                look.rows = try await TopSource.state(at: page).rows(of: "\(address)")
            }
            measure(&look.rows)
        } catch {
            look.error = "\(error)"
        }
        return look
    }

    private func ask(_ socket: SocketAddress) async throws -> TopLook.Row {
        let client: AgentClient
        if let agent { client = agent } else { client = try await AgentClient(socket) }
        agent = client
        do {
            return TopSource.row(try await client.report(within: TopSource.patience), of: socket)
        } catch {
            agent = nil
            await client.close()
            throw error
        }
    }

    private static func state(at page: SocketAddress) async throws -> TopState {
        let server = HTTPExchange.Server("pageferry", at: page)
        let answer: HTTPExchange.Answer
        do {
            answer = try await HTTPExchange.get("/api/state", at: server, within: patience)
        } catch {
            throw Failure("cannot read the state at \(TopAddress.http(page)): \(error)")
        }
        guard answer.status == 200 else {
            throw Failure("cannot read the state at \(TopAddress.http(page)): \(answer.status) \(answer.reason)")
        }
        return try TopState(reading: answer.body)
    }

    private static func row(_ report: AgentReport, of socket: SocketAddress) -> TopLook.Row {
        var row = TopLook.Row(name: "\(socket)", state: report.states.last?.rawValue ?? "")
        if let destination = report.destination {
            if destination.pages.total > 0 { row.pages = (destination.pages.resident, destination.pages.total) }
            row.waiting = destination.waitingFaults
            let waits = destination.stall.count > 0 ? destination.stall : destination.service
            if waits.count > 0 { row.waits = (waits.p50, waits.p99) }
        }
        let runs =
            report.workload.isEmpty ? "" : "\(report.workload) \(report.runsHere ? "runs here" : "does not run here")"
        row.note = [runs, report.error ?? ""].filter { !$0.isEmpty }.joined(separator: "; ")
        return row
    }

    /// Computes the rates of rows since the look before.
    private func measure(_ rows: inout [TopLook.Row]) {
        let now = MonotonicClock.now()
        if let before {
            let seconds = MonotonicClock.time(since: before.at) / .seconds(1)
            for index in rows.indices {
                guard let pages = rows[index].pages, let earlier = before.pages[rows[index].name], seconds > 0 else {
                    continue
                }
                rows[index].rate = max(0, Double(pages.here) - Double(earlier)) / seconds
            }
        }
        let counted = rows.compactMap { row in row.pages.map { (row.name, $0.here) } }
        before = (Dictionary(counted) { first, _ in first }, now)
    }
}

/// What `top` reads of the state of a live page.
private struct TopState: Decodable {
    struct Migration: Decodable {
        struct Side: Decodable {
            struct Passed: Decodable { let state: String }
            let own: Bool
            let states: [Passed]
        }
        let workload: String
        let runsHere: Bool
        let sides: [Side]
        let error: String?
    }
    struct Pages: Decodable {
        let total, resident, waiting: Int
    }
    struct Stall: Decodable {
        let count: UInt64
        let p50Us, p99Us: Double
    }
    struct Guest: Decodable {
        let id, name, state: String
        let total, resident, waiting: Int
        let p50Us, p99Us: Double
    }
    struct Server: Decodable {
        let path: String
        let connections: Int
        let rateBytesPerS: UInt64
    }

    let kind: String
    let migration: Migration?
    let pages: Pages?
    let stall: Stall?
    let guests: [Guest]?
    let server: Server?

    init(reading body: [UInt8]) throws {
        do {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            self = try decoder.decode(TopState.self, from: Data(body))
        } catch {
            // The decoder's own words name fields that no person knows.
            throw Failure("its state cannot be read; check that a pageferry of the same release runs there")
        }
    }

    func rows(of name: String) -> [TopLook.Row] {
        if let server {
            let rate = String(format: "%.1f MiB/s", Double(server.rateBytesPerS) / 1_048_576)
            let note = "\(counted(server.connections, "connection")), \(rate), \(server.path)"
            return [TopLook.Row(name: name, state: "serves", note: note)]
        }
        if let guests {
            let head = TopLook.Row(name: name, state: "serves", note: counted(guests.count, "guest"))
            return [head]
                + guests.map { guest in
                    var row = TopLook.Row(
                        name: "  \(guest.id)",
                        state: guest.state,
                        pages: (guest.resident, guest.total)
                    )
                    row.waiting = guest.waiting
                    if guest.p99Us > 0 { row.waits = (guest.p50Us, guest.p99Us) }
                    row.note = guest.name
                    return row
                }
        }
        var row = TopLook.Row(name: name, state: migration?.sides.first { $0.own }?.states.last?.state ?? "none")
        if let pages, pages.total > 0 { row.pages = (pages.resident, pages.total) }
        row.waiting = pages?.waiting ?? 0
        if let stall, stall.count > 0 { row.waits = (stall.p50Us, stall.p99Us) }
        if let migration, !migration.workload.isEmpty {
            row.note = "\(migration.workload) \(migration.runsHere ? "runs here" : "does not run here")"
        }
        if let error = migration?.error { row.note += row.note.isEmpty ? error : "; \(error)" }
        return [row]
    }
}
