import Foundation
import Identity
import RunLease
import Synchronization

@testable import Controller

/// A file store of run leases whose calls a test can hold back, as if the server hung or a write landed late.
final class HeldStore: RunLeaseStore {
    /// The kind of a call that waits at the gate before it is made.
    enum Call: Hashable, Sendable { case newest, record, propose }

    let files: FileRunLeaseStore
    let gate: Gate
    private let path: String
    private let held: Mutex<Set<Call>>

    /// Makes a store in a folder of its own.
    init(holding held: Set<Call> = []) throws {
        path = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        files = try FileRunLeaseStore(directory: path)
        gate = try Gate()
        self.held = Mutex(held)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// Holds every further call of these kinds, until the gate opens for good.
    func hold(_ calls: Set<Call>) { held.withLock { $0 = calls } }

    /// Removes all records of a workload, which an operator must never do.
    func removeRecords(of workload: String) throws {
        try FileManager.default.removeItem(atPath: "\(path)/\(workload)")
    }

    /// Writes a file among the records of a workload.
    func write(_ text: String, as name: String, for workload: String) throws {
        try FileManager.default.createDirectory(atPath: "\(path)/\(workload)", withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(path)/\(workload)/\(name)"))
    }

    private func pass(_ call: Call) {
        if held.withLock({ $0.contains(call) }) { gate.pass() }
    }

    var name: String { files.name }

    func place(of workload: String) -> String { "leases/\(workload)" }

    func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? {
        pass(.newest)
        return try files.newest(workload)
    }

    func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
        pass(.record)
        return try files.record(of: epoch, for: workload)
    }

    func propose(
        _ record: LeaseRecord,
        following predecessor: LeaseRecord?,
        for workload: String
    ) throws(RunLeaseError) -> LeaseProposal {
        pass(.propose)
        return try files.propose(record, following: predecessor, for: workload)
    }
}

extension FileRunLeaseStore {
    /// Writes a record of the next epoch for any owner.
    @discardableResult
    func append(_ owner: String, token: RunToken = .none, started: Bool = true, to workload: String) throws
        -> LeaseRecord
    {
        let newest = try newest(workload)
        let record =
            try newest?.next(owner: owner, token: token, started: started)
            ?? LeaseRecord(epoch: 1, owner: owner, token: token, started: started)
        guard try propose(record, following: newest, for: workload) == .won else { throw Unwritten() }
        return record
    }

    private struct Unwritten: Error {}
}
