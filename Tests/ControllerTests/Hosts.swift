import Controller
import Glibc
import Guest
import LogLines
import QMP
import Synchronization
import Testing

@testable import LinuxSystem

/// A landing for test workloads.
final class TestLanding: Landing {
    /// The workload that landed last.
    private let landed = Mutex<TestWorkload?>(nil)
    /// A second descriptor of the userfaultfd, by which the end of a test wakes the threads that wait for a page.
    private let copy = Mutex<Userfaultfd?>(nil)
    private let journal: Journal
    private let maxPages: Int
    private let configure: @Sendable (TestWorkload) -> Void

    init(journal: Journal, maxPages: Int = 1 << 20, configure: @escaping @Sendable (TestWorkload) -> Void = { _ in }) {
        self.journal = journal
        self.maxPages = maxPages
        self.configure = configure
    }

    var workload: TestWorkload? { landed.withLock(\.self) }

    func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        let pages = description.regions.reduce(0) { $0 + $1.pageCount }
        guard pages <= maxPages else { throw TooLarge(pages: pages) }
        let userfaultfd = try Userfaultfd()
        let regions = try description.regions.map { try MemoryRegion(name: $0.name, pageCount: $0.pageCount) }
        for region in regions { try userfaultfd.register(region.range) }
        var second: Userfaultfd? = Userfaultfd(adopting: OwnedDescriptor(dup(userfaultfd.descriptor.raw)))
        copy.withLock { swap(&second, &$0) }
        let workload = try TestWorkload(
            host: "destination",
            description: description,
            regions: regions,
            journal: journal
        )
        configure(workload)
        landed.withLock { $0 = workload }
        onMemory(
            WaitingMemory(
                userfaultfd: userfaultfd,
                ranges: regions.map(\.range),
                resident: try regions.map { try PageBitmap(pageCount: $0.pageCount) }
            )
        )
        return workload
    }

    /// Truncates the memory's file, so that no page can be placed from now on.
    ///
    /// Touching the memory afterwards kills the process.
    func refusePages() throws {
        guard let workload else { return }
        try copy.withLock { userfaultfd in
            for region in workload.regions {
                let file = try MemoryFile(name: "refused", byteCount: region.byteCount)
                let (raw, flags) = (file.descriptor.raw, MAP_FIXED | MAP_SHARED)
                let place = mmap(region.base, region.byteCount, PROT_READ | PROT_WRITE, flags, raw, 0)
                guard place == region.base else { throw Host.NeverCame() }
                try userfaultfd?.register(region.range)
                guard ftruncate(raw, 0) == 0 else { throw Host.NeverCame() }
            }
        }
    }

    /// Makes missing pages read as zeros from now on.
    func releaseReaders() {
        guard let workload else { return }
        copy.withLock { userfaultfd in
            for region in workload.regions { try? userfaultfd?.unregister(region.range) }
        }
    }

    struct TooLarge: Error, CustomStringConvertible {
        let pages: Int
        var description: String { "\(pages) pages do not fit here" }
    }
}

/// One agent with its events and log.
final class Host: Sendable {
    let agent: Agent
    private let log: LogLines
    private let told = Mutex<[String]>([])

    init(
        workload: TestWorkload? = nil,
        landing: (any Landing)? = nil,
        configuration: Agent.Configuration = .init(),
        log: LogLines = LogLines()
    ) {
        self.log = log
        agent = Agent(
            workload: workload.map { ($0, $0.sourceMemory ?? []) },
            landing: landing,
            configuration: configuration,
            logger: log.logger
        )
        agent.setEventSink { [self] event in
            let (name, data) = (event.name, event.data)
            let event = name == "MIGRATION" ? data["status"]?.string ?? "" : name
            told.withLock { $0.append(event) }
        }
    }

    /// Waits until the agent has logged a line that contains `text`.
    func wait(forLine text: String) async throws {
        #expect(try await soon { "\(log.all)".contains(text) }, "no line with '\(text)' was logged, only \(log.all)")
    }

    /// The number of logged lines that contain `text`.
    func lines(containing text: String) -> Int { log.count(of: text) }

    /// The names of the events in order; for a state of the migration, the name of the state.
    var events: [String] { told.withLock(\.self) }

    /// The states of the migration, in order, from `none`.
    var passed: [String] { ["none"] + events.filter { $0 == $0.lowercased() } }

    @discardableResult
    func command(_ name: String, _ arguments: [String: JSONValue] = [:]) async throws -> JSONValue {
        let answer = try await agent.answer(QMPCommand(name: name, arguments: arguments))
        let description = agent.commands.first { $0.name == name }
        #expect(description?.result.includes(answer) == true, "\(name) answers \(answer), not as described")
        return answer
    }

    /// The line with which a command fails; nil if it works.
    func refusal(_ name: String, _ arguments: [String: JSONValue] = [:]) async -> String? {
        do throws(QMPError) {
            _ = try await agent.answer(QMPCommand(name: name, arguments: arguments))
            return nil
        } catch {
            return error.errorClass == .genericError ? error.description : "\(error.errorClass.rawValue): \(error)"
        }
    }

    var failure: String? {
        get async throws { try await command("query-migrate")["error-desc"]?.string }
    }

    var isRunning: Bool {
        get async throws { try await command("query-status")["running"]?.boolean ?? false }
    }

    /// Thrown if a state was never reached; the test cannot continue, since pages may never arrive either.
    struct NeverCame: Error {}

    /// Waits until the migration is in a state; records an issue and throws if it never is.
    func wait(for state: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        if try await soon({ try await command("query-migrate")["status"]?.string == state }) { return }
        let failure = try await failure ?? "no failure"
        Issue.record("never \(state), only \(passed); \(failure); \(log.all)", sourceLocation: sourceLocation)
        throw NeverCame()
    }

    /// The address at which the agent waits for a source; throws if it does not.
    func address() async throws -> SocketAddress {
        let socket = try await command("query-migrate")["socket-address"]?[0]
        guard let host = socket?["host"]?.string, let port = socket?["port"]?.string else { throw NeverCame() }
        return try SocketAddress("tcp:\(host):\(port)")
    }

    /// Waits until the workload runs here, or does not run here; records an issue and throws if that never happens.
    func wait(untilRunning expected: Bool, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        if try await soon({ try await isRunning == expected }) { return }
        Issue.record("running is not \(expected)", sourceLocation: sourceLocation)
        throw NeverCame()
    }
}

/// Checks a condition again and again until it holds; returns false after 30 seconds.
func soon(_ condition: () async throws -> Bool) async throws -> Bool {
    try await soon(nil, condition)
}

/// Checks a condition again and again until it holds; returns false after 30 seconds.
///
/// - Parameter clock: is set forward by 500 ms before each check; nil leaves the time as it goes.
func soon(_ clock: TestClock?, _ condition: () async throws -> Bool) async throws -> Bool {
    let deadline = MonotonicClock.now() + 30_000_000_000
    while try await !condition() {
        guard MonotonicClock.now() < deadline else { return false }
        clock?.skip(.milliseconds(500))
        // This is the interval between two checks, not a guess of how long the condition takes. More than a hundred tests
        // check at the same time, so a shorter one would keep the processors busy.
        try await Task.sleep(for: .milliseconds(10))
    }
    return true
}
