import Foundation
import Identity
import RunLease

/// A directory that is removed when the test no longer needs it.
final class Site: Sendable {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("run-lease-\(UUID())").path

    init() throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    func store() throws -> FileRunLeaseStore { try FileRunLeaseStore(directory: path) }

    func names(in folder: String = "") throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: "\(path)/\(folder)").sorted()
    }

    func write(_ text: String, to file: String) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(path)/\(file)"))
    }
}

extension LeaseRecord {
    /// A record whose owner is named by one digit.
    static func of(_ side: Int, epoch: UInt64 = 1) -> LeaseRecord {
        LeaseRecord(
            epoch: epoch,
            owner: String(repeating: "\(side)", count: 32),
            token: RunToken(UInt64(side)),
            started: true
        )
    }
}

extension FileRunLeaseStore {
    /// Proposes a record after the newest one.
    func propose(_ record: LeaseRecord, for workload: String = "vm") throws(RunLeaseError) -> LeaseProposal {
        let before = record.epoch - 1
        let predecessor = before == 0 ? nil : try self.record(of: before, for: workload)
        return try propose(record, following: predecessor, for: workload)
    }

    func newest() throws(RunLeaseError) -> LeaseRecord? { try newest("vm") }
}
