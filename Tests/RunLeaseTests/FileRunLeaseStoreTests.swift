import Foundation
import Identity
import OwnThread
import RunLease
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FileRunLeaseStoreTests {
    private let site: Site

    init() throws { site = try Site() }

    @Test func `a store keeps its name when its directory is moved`() throws {
        let name = try site.store().name
        #expect(name.count == 32)
        #expect(try site.store().name == name)
        try FileManager.default.createSymbolicLink(atPath: "\(site.path)/elsewhere", withDestinationPath: site.path)
        #expect(try FileRunLeaseStore(directory: "\(site.path)/elsewhere").name == name)
        #expect(try Site().store().name != name)
    }

    @Test func `epochs follow each other, and the last is the newest`() throws {
        let store = try site.store()
        #expect(try store.newest() == nil)
        for epoch in 1...12 as ClosedRange<UInt64> {
            let record = LeaseRecord.of(Int(epoch % 2), epoch: epoch)
            #expect(try store.propose(record) == .won)
            #expect(try store.newest() == record)
        }
        #expect(try site.names(in: "vm") == (1...12).map { "\($0)" }.sorted())
    }

    @Test func `workloads have epochs of their own`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1), for: "a") == .won)
        #expect(try store.propose(.of(2), for: "b") == .won)
        #expect(try store.newest("a") == .of(1))
        #expect(try store.newest("b") == .of(2))
    }

    @Test func `the second proposer of an epoch gets the newest record`() throws {
        let (first, second) = (try site.store(), try site.store())
        #expect(try first.propose(.of(1)) == .won)
        #expect(try second.propose(.of(2)) == .lost(newest: .of(1)))
        #expect(try first.propose(.of(1, epoch: 2)) == .won)
        #expect(try second.propose(.of(2)) == .lost(newest: .of(1, epoch: 2)))
    }

    @Test func `a record that is proposed again wins again, even if others have followed`() throws {
        let store = try site.store()
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        #expect(try store.newest() == .of(1, epoch: 3))
    }

    @Test func `another record of the same owner and epoch does not win`() throws {
        let store = try site.store()
        let record = LeaseRecord.of(1)
        #expect(try store.propose(record) == .won)
        let others = [
            LeaseRecord(epoch: 1, owner: record.owner, token: 2, started: true),
            LeaseRecord(epoch: 1, owner: record.owner, token: 1, started: false),
        ]
        for other in others { #expect(try store.propose(other) == .lost(newest: record)) }
    }

    @Test func `an epoch that does not follow the last one is refused`() throws {
        let store = try site.store()
        #expect(throws: RunLeaseError("cannot add epoch 2 of 'vm' in \(site.path): no epoch exists yet")) {
            try store.propose(.of(1, epoch: 2))
        }
        #expect(try store.propose(.of(1)) == .won)
        for epoch in [3, .max] as [UInt64] {
            #expect(throws: RunLeaseError("cannot add epoch \(epoch) of 'vm' in \(site.path): the newest epoch is 1")) {
                try store.propose(.of(1, epoch: epoch))
            }
        }
        #expect(try site.names(in: "vm") == ["1"])
    }

    @Test func `a record follows only the record that its proposer has seen`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1), following: nil, for: "vm") == .won)
        let others = [
            LeaseRecord.of(2), LeaseRecord(epoch: 1, owner: LeaseRecord.of(1).owner, token: 1, started: false),
        ]
        for other in others {
            #expect(try store.propose(.of(3, epoch: 2), following: other, for: "vm") == .lost(newest: .of(1)))
        }
        #expect(throws: RunLeaseError("cannot add epoch 2 of 'vm' in \(site.path): the newest epoch is 1")) {
            try store.propose(.of(3, epoch: 2), following: nil, for: "vm")
        }
        #expect(throws: RunLeaseError("cannot add epoch 1 of 'vm' in \(site.path): the newest epoch is 1")) {
            try store.propose(.of(1), following: .of(1), for: "vm")
        }
        #expect(try site.names(in: "vm") == ["1"])
        #expect(try store.propose(.of(3, epoch: 2), following: .of(1), for: "vm") == .won)
        // An existing record wins again only for a proposer that has seen the record before it.
        #expect(try store.propose(.of(3, epoch: 2), following: .of(2), for: "vm") == .lost(newest: .of(3, epoch: 2)))
    }

    #if DEBUG
    @Test func `nothing is written into a folder that was removed and made again meanwhile`() throws {
        let (store, path) = (try site.store(), site.path)
        #expect(try store.propose(.of(1), for: "counted") == .won)
        let count = try Calls.of { _ = try store.propose(.of(2, epoch: 2), following: .of(1), for: "counted") }.count
        for place in 0..<count {
            let workload = "vm-\(place)"
            #expect(try store.propose(.of(1), for: workload) == .won)
            let proposal = try? Calls.at(place) { _ in
                try? FileManager.default.removeItem(atPath: "\(path)/\(workload)")
                _ = try? store.propose(.of(3), following: nil, for: workload)
                return nil
            } _: {
                try store.propose(.of(2, epoch: 2), following: .of(1), for: workload)
            }
            // The proposal may have won only if its record was written before the folder was removed.
            if proposal == .won { #expect(place >= count - 2) }
            #expect(try store.newest(workload) == .of(3))
            #expect(try site.names(in: workload) == ["1"])
        }
    }
    #endif

    @Test func `each epoch's record can be read, whatever has followed`() throws {
        let store = try site.store()
        #expect(try store.record(of: 1, for: "vm") == nil)
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        for epoch in 1...3 as ClosedRange<UInt64> {
            #expect(try store.record(of: epoch, for: "vm") == .of(1, epoch: epoch))
        }
        for epoch in [0, 4, .max] as [UInt64] { #expect(try store.record(of: epoch, for: "vm") == nil) }
    }

    @Test func `the last possible epoch is read, and no record follows it`() throws {
        let store = try site.store()
        let record = LeaseRecord(epoch: .max, owner: LeaseRecord.of(1).owner, started: false)
        #expect(try store.propose(.of(1)) == .won)
        try site.write(
            "pageferry run lease 1\nepoch \(UInt64.max)\nowner \(record.owner)\ntoken 0\nstarted no\n",
            to: "vm/\(UInt64.max)"
        )
        #expect(try store.newest() == record)
        #expect(try store.propose(.of(2, epoch: 2)) == .lost(newest: record))
        #expect(throws: RunLeaseError.self) { try record.next(owner: record.owner, started: true) }
        #expect(throws: RunLeaseError.self) { try record.release() }
    }

    @Test func `the history of a lease has all records, including damaged ones`() throws {
        let store = try site.store()
        #expect(try store.history(of: "vm").isEmpty)
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        try FileManager.default.removeItem(atPath: "\(site.path)/vm/2")
        for name in ["5", "\(UInt64.max)", "0", "x"] { try site.write("", to: "vm/\(name)") }
        let history = try store.history(of: "vm")
        #expect(history.map(\.epoch) == [1, 3, 5, .max])
        #expect(history.map(\.record) == [.of(1), .of(1, epoch: 3), nil, nil])
    }

    @Test func `reading a directory that is not a store does not make it one`() throws {
        let reason =
            "\(site.path) is no run lease store: no agent was started with --lease \(site.path)/NAME; check the path, "
            + "and that the folder is mounted here"
        #expect(throws: RunLeaseError(reason)) { try FileRunLeaseStore(directory: site.path, creates: false) }
        #expect(try site.names() == [])
        let name = try site.store().name
        #expect(try FileRunLeaseStore(directory: site.path, creates: false).name == name)
    }

    @Test func `the epoch of a removed record is never used again`() throws {
        let store = try site.store()
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        try FileManager.default.removeItem(atPath: "\(site.path)/vm/2")
        #expect(try store.propose(.of(2, epoch: 2)) == .lost(newest: .of(1, epoch: 3)))
    }

    @Test(arguments: ["", "pageferry run lease 1\n", String(repeating: "x", count: 5000)])
    func `the error about a damaged record names its file`(text: String) throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        try site.write(text, to: "vm/2")
        let error = RunLeaseError(
            "the run lease record \(site.path)/vm/2 is damaged; see: pageferry lease \(site.path)/vm"
        )
        #expect(throws: error) { try store.newest() }
        #expect(throws: error) { try store.propose(.of(1, epoch: 2)) }
        #expect(throws: error) { try store.propose(.of(1, epoch: 3)) }
    }

    @Test func `a record after a damaged newest record releases the lease and does nothing else`()
        throws
    {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        #expect(try !store.release(damaged: 1, for: "vm"))
        try site.write("", to: "vm/2")
        #expect(try !store.release(damaged: 1, for: "vm"))
        #expect(try store.release(damaged: 2, for: "vm"))
        #expect(try store.newest()?.standing == .released)
        #expect(try store.newest()?.epoch == 3)
        #expect(try !store.release(damaged: 2, for: "vm"))
        // A start of epoch 2 and a start that would follow it can no longer win.
        #expect(throws: RunLeaseError.self) { try store.propose(.of(1, epoch: 2)) }
        #expect(throws: RunLeaseError.self) { try store.propose(.of(1, epoch: 3)) }
        try site.write("", to: "vm/\(UInt64.max)")
        #expect(throws: RunLeaseError.self) { try store.release(damaged: .max, for: "vm") }
    }

    @Test func `a record under the name of another epoch is damaged`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        try FileManager.default.copyItem(atPath: "\(site.path)/vm/1", toPath: "\(site.path)/vm/2")
        #expect(
            throws: RunLeaseError(
                "the run lease record \(site.path)/vm/2 is damaged; see: pageferry lease \(site.path)/vm"
            )
        ) { try store.newest() }
    }

    @Test func `a store with a damaged name is refused`() throws {
        try site.write("0123\n", to: ".store-id")
        #expect(throws: RunLeaseError("\(site.path)/.store-id does not hold the name of a run lease store")) {
            try site.store()
        }
    }

    @Test func `files that are not records are ignored`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        for name in [".new-1", "02", "+2", "2~", "18446744073709551616"] { try site.write("", to: "vm/\(name)") }
        #expect(try store.newest() == .of(1))
        #expect(try store.propose(.of(1, epoch: 2)) == .won)
    }

    @Test(arguments: ["", ".", "..", ".store-id", "a/b", "a b", "ä", "a\0", String(repeating: "a", count: 65)])
    func `a workload with an invalid name has no lease`(name: String) throws {
        let store = try site.store()
        #expect(throws: RunLeaseError.self) { try store.newest(name) }
        let error = #expect(throws: RunLeaseError.self) { try store.propose(.of(1), for: name) }
        #expect(error?.description.hasPrefix("a workload with a run lease cannot be called '\(name)'; give ") == true)
        #expect(try site.names() == [".store-id"])
    }

    @Test func `a workload's name may use every allowed character`() throws {
        let store = try site.store()
        for name in ["a", "-", "Zz09._-", String(repeating: "a", count: 64)] {
            #expect(try store.propose(.of(1), for: name) == .won)
            #expect(try store.newest(name) == .of(1))
        }
    }
}
