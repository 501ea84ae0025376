import Firecracker
import FirecrackerRig
import Foundation
import HugePages
import OwnThread
import Testing

/// Firecracker and its stand-in, which a handler cannot tell apart.
@Suite("A restored guest", .ownThread, .timeLimit(.minutes(1)))
struct HandOffTests {
    let site: Site
    let socket: String

    init() throws {
        site = try Site()
        socket = site.file("handler.sock")
    }

    @Test("hands its memory over and finds every page right", arguments: GuestKind.available)
    func isServed(kind: GuestKind) throws {
        let snapshot = try kind.snapshot(in: site.folder)
        let handler = try LeastHandler(at: socket, serving: snapshot.memory, in: site.folder)
        let guest = try kind.restore(snapshot, with: socket, in: site.folder)
        let one = try Regex(
            #"\[\{"base_host_virt_addr":\d+,"size":16777216,"offset":0,"page_size":4096,"page_size_kib":4096\}\]"#
        )
        let message = try handler.message()
        #expect(message.wholeMatch(of: one) != nil, "\(message)")
        guest.send(.dispersed)
        #expect(try guest.perform(.workingSet) == 1)
        guest.send(.ascending)
        #expect(try guest.perform(.pass) == 1)
        #expect(try guest.perform(.pass) == 2)
        guest.end()
        // Writing to a guest that has ended raises no SIGPIPE.
        guest.send(.stop)
        #expect(try (3584...4096).contains(handler.faults()))
    }

    @Test("finds the page that is wrong", arguments: GuestKind.available)
    func isServedWrongly(kind: GuestKind) throws {
        let snapshot = try kind.snapshot(memoryMiB: 8, in: site.folder)
        let handler = try LeastHandler(at: socket, serving: snapshot.memory, wrongPage: 0x5a0, in: site.folder)
        let guest = try kind.restore(snapshot, with: socket, in: site.folder)
        let failure = try #require(throws: RigFailure.self) { try guest.perform(.pass) }
        #expect(failure.description.contains("bad 00000000000005a0 0000000000000000"), "\(failure)")
        withExtendedLifetime(handler) {}
    }

    @Test("finds zeros in the pages that its balloon took, and every other page right", arguments: GuestKind.available)
    func isInflated(kind: GuestKind) throws {
        let snapshot = try kind.snapshot(in: site.folder)
        let handler = try LeastHandler(at: socket, serving: snapshot.memory, in: site.folder)
        let guest = try kind.restore(snapshot, with: socket, in: site.folder)
        // The guest has never touched these pages.
        #expect(try guest.perform(.inflate) == 256)
        #expect(try handler.removed() == 1024..<1280)
        try guest.perform(.pass)
        // The guest has written these pages.
        #expect(try guest.perform(.inflate) == 512)
        #expect(try handler.removed() == 1280..<1536)
        try guest.perform(.pass)
    }

    @Test("is served while its pages go one by one, and in separate regions")
    func isInflatedBesideFaults() throws {
        let regions = [6 << 20, 10 << 20]
        let memory = site.file("memory")
        try StandIn.writeMemory(regions, to: memory, in: site.folder)
        let handler = try LeastHandler(at: socket, serving: memory, in: site.folder)
        let guest = try StandIn.restore(regions, with: socket, in: site.folder)
        #expect(try handler.message().contains(#""size":10485760,"offset":6291456,"#))
        for _ in 0..<4 { try guest.perform(.inflateBesideFaults) }
        #expect(try guest.perform(.pass) == 1)
        guest.end()
        #expect(try handler.faults() >= 4096)
    }

    @Test("of huge pages hands over huge pages")
    func isHuge() throws {
        // One page more than the guest has, since the handler's copy takes a further huge page for a moment.
        try HugePages.with(free: 5) {
            let regions = [4 << 20, 4 << 20]
            let memory = site.file("memory")
            try StandIn.writeMemory(regions, to: memory, in: site.folder)
            let handler = try LeastHandler(at: socket, serving: memory, in: site.folder)
            let guest = try StandIn.restore(regions, pageSize: 2 << 20, with: socket, in: site.folder)
            #expect(try handler.message().contains(#""page_size":2097152,"page_size_kib":2097152"#))
            #expect(try guest.perform(.inflate) == 512)
            try guest.perform(.pass)
            guest.end()
            #expect(try handler.faults() == 4)
        }
    }
}
