import Foundation
import OwnThread
import RunLease
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FileRunLeaseStoreTests {
    private let site: Site

    init() throws { site = try Site() }

    @Test func `a store has one name, wherever its directory is`() throws {
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

    @Test func `whoever comes second is told the newest record`() throws {
        let (first, second) = (try site.store(), try site.store())
        #expect(try first.propose(.of(1)) == .won)
        #expect(try second.propose(.of(2)) == .lost(newest: .of(1)))
        #expect(try first.propose(.of(1, epoch: 2)) == .won)
        #expect(try second.propose(.of(2)) == .lost(newest: .of(1, epoch: 2)))
    }

    @Test func `a record that is proposed again wins again, also when others have followed`() throws {
        let store = try site.store()
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        #expect(try store.newest() == .of(1, epoch: 3))
    }

    @Test func `one owner's other record of an epoch is another`() throws {
        let store = try site.store()
        let record = LeaseRecord.of(1)
        #expect(try store.propose(record) == .won)
        let others = [
            LeaseRecord(epoch: 1, owner: record.owner, token: 2, started: true),
            LeaseRecord(epoch: 1, owner: record.owner, token: 1, started: false),
        ]
        for other in others { #expect(try store.propose(other) == .lost(newest: record)) }
    }

    @Test func `an epoch that follows none is refused`() throws {
        let store = try site.store()
        #expect(throws: RunLeaseError("epoch 2 of 'vm' in \(site.path) follows no other: there is none yet")) {
            try store.propose(.of(1, epoch: 2))
        }
        #expect(try store.propose(.of(1)) == .won)
        for epoch in [3, .max] as [UInt64] {
            #expect(throws: RunLeaseError("epoch \(epoch) of 'vm' in \(site.path) follows no other: the last is 1")) {
                try store.propose(.of(1, epoch: epoch))
            }
        }
        #expect(try site.names(in: "vm") == ["1"])
    }

    @Test func `a record follows only the one that its proposer has seen`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1), following: nil, for: "vm") == .won)
        let others = [
            LeaseRecord.of(2), LeaseRecord(epoch: 1, owner: LeaseRecord.of(1).owner, token: 1, started: false),
        ]
        for other in others {
            #expect(try store.propose(.of(3, epoch: 2), following: other, for: "vm") == .lost(newest: .of(1)))
        }
        #expect(throws: RunLeaseError("epoch 2 of 'vm' in \(site.path) follows no other: the last is 1")) {
            try store.propose(.of(3, epoch: 2), following: nil, for: "vm")
        }
        #expect(throws: RunLeaseError("epoch 1 of 'vm' in \(site.path) follows no other: the last is 1")) {
            try store.propose(.of(1), following: .of(1), for: "vm")
        }
        #expect(try site.names(in: "vm") == ["1"])
        #expect(try store.propose(.of(3, epoch: 2), following: .of(1), for: "vm") == .won)
        // Also a record that is there is only had again by who has seen the one before.
        #expect(try store.propose(.of(3, epoch: 2), following: .of(2), for: "vm") == .lost(newest: .of(3, epoch: 2)))
    }

    #if DEBUG
    @Test func `whenever the folder is removed and made again, nothing is written into the new one`() throws {
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
            // Only a record that was there before its folder went may have won.
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

    @Test func `the last of all epochs is read, and nothing follows it`() throws {
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

    @Test func `the history of a lease has all that is there, also what is damaged`() throws {
        let store = try site.store()
        #expect(try store.history(of: "vm").isEmpty)
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        try FileManager.default.removeItem(atPath: "\(site.path)/vm/2")
        for name in ["5", "\(UInt64.max)", "0", "x"] { try site.write("", to: "vm/\(name)") }
        let history = try store.history(of: "vm")
        #expect(history.map(\.epoch) == [1, 3, 5, .max])
        #expect(history.map(\.record) == [.of(1), .of(1, epoch: 3), nil, nil])
    }

    @Test func `a directory that is no store is not made one by who only looks`() throws {
        let reason = "\(site.path) is no run lease store: no agent was started with --lease \(site.path)/NAME"
        #expect(throws: RunLeaseError(reason)) { try FileRunLeaseStore(directory: site.path, creates: false) }
        #expect(try site.names() == [])
        let name = try site.store().name
        #expect(try FileRunLeaseStore(directory: site.path, creates: false).name == name)
    }

    @Test func `an epoch whose record was removed is never given again`() throws {
        let store = try site.store()
        for epoch in 1...3 as ClosedRange<UInt64> { #expect(try store.propose(.of(1, epoch: epoch)) == .won) }
        try FileManager.default.removeItem(atPath: "\(site.path)/vm/2")
        #expect(try store.propose(.of(2, epoch: 2)) == .lost(newest: .of(1, epoch: 3)))
    }

    @Test(arguments: ["", "pageferry run lease 1\n", String(repeating: "x", count: 5000)])
    func `a damaged record is told with its file`(text: String) throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        try site.write(text, to: "vm/2")
        let error = RunLeaseError("the run lease record \(site.path)/vm/2 is damaged")
        #expect(throws: error) { try store.newest() }
        #expect(throws: error) { try store.propose(.of(1, epoch: 2)) }
        #expect(throws: error) { try store.propose(.of(1, epoch: 3)) }
    }

    @Test func `a record under the name of another epoch is damaged`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        try FileManager.default.copyItem(atPath: "\(site.path)/vm/1", toPath: "\(site.path)/vm/2")
        #expect(throws: RunLeaseError("the run lease record \(site.path)/vm/2 is damaged")) { try store.newest() }
    }

    @Test func `a store whose name is damaged is none`() throws {
        try site.write("0123\n", to: ".store-id")
        #expect(throws: RunLeaseError("\(site.path)/.store-id does not hold the name of a run lease store")) {
            try site.store()
        }
    }

    @Test func `files that are no records mean nothing`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        for name in [".new-1", "02", "+2", "2~", "18446744073709551616"] { try site.write("", to: "vm/\(name)") }
        #expect(try store.newest() == .of(1))
        #expect(try store.propose(.of(1, epoch: 2)) == .won)
    }

    @Test(arguments: ["", ".", "..", ".store-id", "a/b", "a b", "ä", "a\0", String(repeating: "a", count: 65)])
    func `a workload whose name is no plain word has no lease`(name: String) throws {
        let store = try site.store()
        #expect(throws: RunLeaseError.self) { try store.newest(name) }
        let error = #expect(throws: RunLeaseError.self) { try store.propose(.of(1), for: name) }
        #expect(error?.description.hasPrefix("a workload with a run lease cannot be called '\(name)'; give ") == true)
        #expect(try site.names() == [".store-id"])
    }

    @Test func `a workload's name can have all that is allowed`() throws {
        let store = try site.store()
        for name in ["a", "-", "Zz09._-", String(repeating: "a", count: 64)] {
            #expect(try store.propose(.of(1), for: name) == .won)
            #expect(try store.newest(name) == .of(1))
        }
    }
}
