import Glibc
import Guest
import LandedGuest
import LinuxSystem
import LogLines
import Synchronization

@testable import Attachments

/// A landing at a socket of its own, with its log.
///
/// Call ``end()`` also after a failure.
final class Site: Sendable {
    let path: String
    let landing: AttachedLanding
    let log: LogLines
    private let directory: String
    /// The attached processes, whose sockets stay open.
    private let kept = Mutex<[any AnyObject & Sendable]>([])

    init(answerSeconds: UInt64 = 30, takesRunning: Bool = false) throws {
        var template = Array("/tmp/attachments-tests-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Missing(what: "a directory") }
        directory = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        path = "\(directory)/socket"
        log = LogLines()
        landing = try AttachedLanding(
            socketPath: path,
            takesRunning: takesRunning,
            answerSeconds: answerSeconds,
            logger: log.logger
        )
    }

    /// Keeps a process until the site is gone.
    func keep(_ process: any AnyObject & Sendable) { kept.withLock { $0.append(process) } }

    func end() {
        landing.close()
        rmdir(directory)
    }

    /// Attaches a process, and waits until the landing has accepted it.
    func attach(pageCounts: [Int] = [4]) throws -> AttachingProcess {
        let process = try AttachingProcess(at: path, pageCounts: pageCounts)
        let before = log.count(of: "has attached")
        kept.withLock { $0.append(process) }
        try process.handOver()
        guard log.first(containing: "has attached", beyond: before) != nil else { throw Missing(what: "the process") }
        return process
    }

    /// A guest with regions of these sizes.
    static func guest(pageCounts: [Int], pageSize: Int = 4096) -> GuestDescription {
        GuestDescription(
            kind: "test",
            name: "test",
            configuration: [],
            regions: pageCounts.enumerated().map {
                GuestDescription.Region(name: "r\($0)", pageSize: pageSize, pageCount: $1)
            }
        )
    }

    /// The workload of a guest that fits the attached process.
    func workload(pageCounts: [Int] = [4]) throws -> any Workload {
        let prepared = try landing.land(Self.guest(pageCounts: pageCounts))
        return prepared.workload
    }
}

/// Runs work that blocks for seconds on its own thread, since all tests share the few threads of the pool.
func apart<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    let group = ThreadGroup()
    defer { group.join() }
    return try await withCheckedThrowingContinuation { continuation in
        do throws(SystemError) {
            try group.run("apart") { continuation.resume(with: Result(catching: body)) }
        } catch {
            continuation.resume(throwing: error)
        }
    }
}

/// The error of a test that did not get what it needs.
struct Missing: Error {
    let what: String
}
