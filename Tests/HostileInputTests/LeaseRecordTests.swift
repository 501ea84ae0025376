import Foundation
import Glibc
import Identity
import Testing

@testable import RunLease

/// Damaged run lease records, in a folder that other programs can write to.
@Suite("Damaged run leases", .timeLimit(.minutes(10)))
struct LeaseRecordTests {
    private static let owner = "00112233445566778899aabbccddeeff"
    private static let other = String(repeating: "b", count: 32)

    /// A record with damaged text or with one changed number.
    private func damaged(_ record: LeaseRecord, _ mutator: inout Mutator) -> [UInt8] {
        switch Int.random(in: 0...9, using: &mutator) {
        case 0:
            let count = Int.random(in: 0...400, using: &mutator)
            return (0..<count).map { _ in UInt8(truncatingIfNeeded: mutator.next()) }
        case 1: return Array(repeatElement(Array(record.text.utf8), count: 3).joined())
        case 2: return Array(record.text.utf8) + [UInt8](repeating: 0, count: 1 << 20)
        case 3...6: return mutator.damagedJSON(record.text)
        default: return mutator.damaged(Array(record.text.utf8))
        }
    }

    /// Uses a record in every way that agents and commands do.
    private func use(_ record: LeaseRecord) {
        _ = (
            record.sentence, record.standing, try? record.next(owner: Self.other, token: RunToken(.max), started: true)
        )
        _ = try? record.release().next(owner: Self.owner, started: false)
        _ = record.possibleRunners(following: record) + record.possibleRunners(following: nil)
    }

    @Test("are refused, or mean what is written")
    func records() {
        var mutator = Mutator("lease records")
        let epochs: [UInt64] = [1, 7, 1 << 62, .max - 1, .max]
        for _ in 0..<5000 {
            let record = LeaseRecord(
                epoch: epochs.randomElement(using: &mutator) ?? 1,
                owner: Self.owner,
                token: [0, 42, RunToken(.max)].randomElement(using: &mutator) ?? .none,
                started: .random(using: &mutator)
            )
            let bytes = damaged(record, &mutator)
            guard let read = LeaseRecord(text: bytes) else { continue }
            #expect(Array(read.text.utf8) == bytes)
            use(read)
        }
    }

    /// Makes a store, and calls the body with the folder of one workload's records.
    private func withFolder(_ body: (_ store: FileRunLeaseStore, _ folder: String) throws -> Void) throws {
        let root = NSTemporaryDirectory() + "pf-hostile-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: "\(root)/vm", withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: root) }
        try body(try FileRunLeaseStore(directory: root), "\(root)/vm")
    }

    private func write(_ bytes: [UInt8], to path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    /// File names that are not those of an epoch, or that belong to another epoch.
    private static let names = [
        "0", "00", "01", "+1", "-1", " 1", "1 ", "1.0", "1e3", "0x10", "18446744073709551615", "18446744073709551616",
        "9223372036854775808", "4294967296", "3", "2", "1", "12", ".new-1", "latest", "\u{661}", "a\nb",
    ]

    @Test("in a folder full of junk are read or refused without blocking")
    func folders() throws {
        var mutator = Mutator("lease folders")
        for _ in 0..<60 {
            try withFolder { store, folder in
                for _ in 0..<Int.random(in: 0...8, using: &mutator) {
                    let name = Self.names.randomElement(using: &mutator) ?? "1"
                    let path = "\(folder)/\(name)"
                    // Opening an existing pipe for writing would block this test.
                    unlink(path)
                    switch Int.random(in: 0...9, using: &mutator) {
                    case 0: mkdir(path, 0o755)
                    case 1: mkfifo(path, 0o600)
                    case 2: symlink("/dev/zero", path)
                    case 3: symlink("/proc/self/mem", path)
                    default:
                        let epoch = max(1, UInt64(name) ?? 1)
                        let record = LeaseRecord(epoch: epoch, owner: Self.owner, token: 7, started: true)
                        let isSound = Bool.random(using: &mutator)
                        try? write(isSound ? Array(record.text.utf8) : damaged(record, &mutator), to: path)
                    }
                }
                // The name is not UTF-8.
                let raw: [CChar] = Array(folder.utf8.map { CChar(bitPattern: $0) }) + [47, -1, -2, 49, 0]
                close(open(raw, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644))
                try check(store, &mutator)
            }
        }
    }

    /// Checks that only the highest epoch counts, and that only a writer that has read it can add the next record.
    private func check(_ store: FileRunLeaseStore, _ mutator: inout Mutator) throws {
        for (epoch, record) in (try? store.history(of: "vm")) ?? [] {
            #expect(record.map { $0.epoch == epoch } ?? true)
            record.map(use)
        }
        for epoch in [0, 1, 2, 3, UInt64.max] { _ = try? store.record(of: epoch, for: "vm") }
        do {
            let newest = try store.newest("vm")
            newest.map(use)
            let history = try? store.history(of: "vm")
            if let history { #expect(history.last?.record == newest) }
            guard let record = try newest?.next(owner: Self.other, started: true) ?? first else { return }
            #expect(try store.propose(record, following: newest, for: "vm") == .won)
            #expect(try store.newest("vm") == record)
        } catch {
            // The error must have a text of one line.
            #expect(!"\(error)".contains("\n") && !"\(error)".isEmpty, "\(error)")
        }
    }

    private var first: LeaseRecord? { LeaseRecord(epoch: 1, owner: Self.other, started: true) }
}
