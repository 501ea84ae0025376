import Glibc
import Guest
import LandedGuest
import LinuxSystem
import LogLines

@testable import Attachments

/// A landing at a socket of its own, with what it has logged. Call ``end()`` also after a failure.
final class Site: Sendable {
    let path: String
    let landing: AttachedLanding
    let log: LogLines
    private let directory: String

    init() throws {
        var template = Array("/tmp/attachments-tests-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Missing(what: "a directory") }
        directory = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        path = "\(directory)/socket"
        log = LogLines()
        landing = try AttachedLanding(socketPath: path, logger: log.logger)
    }

    func end() {
        landing.close()
        rmdir(directory)
    }

    /// A process that has attached, and the landing knows it.
    func attach(pageCounts: [Int] = [4]) throws -> AttachingProcess {
        let process = try AttachingProcess(at: path, pageCounts: pageCounts)
        let before = log.count(of: "has attached")
        try process.handOver()
        guard log.first(containing: "has attached", beyond: before) != nil else { throw Missing(what: "the process") }
        return process
    }

    /// A guest of regions of these sizes.
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

    /// The workload of a guest that fits the process which has attached.
    func workload(pageCounts: [Int] = [4]) throws -> any Workload {
        let prepared = try landing.land(Self.guest(pageCounts: pageCounts))
        return prepared.workload
    }
}

/// Does what blocks for seconds on a thread of its own: the pool's few threads are for everybody's tests.
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

/// What a test needs and did not get.
struct Missing: Error {
    let what: String
}
