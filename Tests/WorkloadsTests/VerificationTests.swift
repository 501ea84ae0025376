import Guest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("Verification", .timeLimit(.minutes(2)))
struct VerificationTests {
    private let workload: BuiltInWorkload
    private let zeroPage: Int
    private let page: Int

    init() throws {
        workload = try BuiltInWorkload(new: .small(.random, pages: 300, threads: 2, writes: 1))
        try workload.perform(operationsPerThread: 500)
        zeroPage = try #require(workload.versions.firstIndex(of: 0))
        page = try #require(workload.versions.firstIndex { $0 > 1 })
    }

    @Test(
        "finds a flipped bit in header, checksum and payload",
        arguments: [0, 7, 8, 15, 16, 23, 24, 31, 32, 2049, 4095]
    )
    func flippedBit(offset: Int) {
        #expect(workload.corrupt == 0)
        for bit in [UInt8(1), 128] {
            workload.page(page)[offset] ^= bit
            #expect(workload.corrupt == 1, "bit \(bit) of byte \(offset)")
            workload.page(page)[offset] ^= bit
        }
        #expect(workload.corrupt == 0)
    }

    @Test("finds two swapped words of a page")
    func swappedWords() {
        let words = workload.page(page).bindMemory(to: UInt64.self)
        for other in [11, 12, 14] {
            words.swapAt(10, other)
            #expect(workload.corrupt == 1)
            words.swapAt(10, other)
        }
    }

    @Test("finds an intact page of an older version", arguments: AccessPattern.allCases)
    func stale(pattern: AccessPattern) throws {
        let workload = try BuiltInWorkload(new: .small(pattern, pages: 50, writes: 1))
        try workload.perform(operationsPerThread: 200)
        let old = (0..<50).map { Array(workload.page($0)) }
        try workload.perform(operationsPerThread: 200)
        #expect(workload.corrupt == 0)
        let page = try #require((0..<50).first { !workload.page($0).elementsEqual(old[$0]) })
        workload.page(page).copyBytes(from: old[page])
        #expect(workload.corrupt == 1)
    }

    @Test("finds two swapped pages")
    func swapped() throws {
        let other = try #require(workload.versions.lastIndex(of: workload.versions[page]))
        try #require(other != page)
        let bytes = Array(workload.page(page))
        workload.page(page).copyBytes(from: workload.page(other))
        workload.page(other).copyBytes(from: bytes)
        #expect(workload.corrupt == 2)
    }

    @Test("finds a zero page in place of a written one, and a written page in place of a zero one")
    func zeroed() {
        let bytes = Array(workload.page(page))
        workload.page(page).initializeMemory(as: UInt8.self, repeating: 0)
        #expect(workload.corrupt == 1)
        workload.page(zeroPage).copyBytes(from: bytes)
        #expect(workload.corrupt == 2)
    }

    @Test("finds a byte in a page that was never written", arguments: [0, 1234, 4095])
    func dirtyZeroPage(offset: Int) {
        workload.page(zeroPage)[offset] = 1
        #expect(workload.corrupt == 1)
    }

    @Test("finds a page of another workload")
    func stranger() throws {
        var configuration = workload.configuration
        configuration.seed += 1
        let stranger = try BuiltInWorkload(new: configuration)
        let page = try #require((0..<300).first { stranger.versions[$0] == 1 && workload.versions[$0] == 1 })
        workload.page(page).copyBytes(from: stranger.page(page))
        #expect(workload.corrupt == 1)
    }

    @Test("counts a page once that an operation found wrong, even if it is right again")
    func foundByOperations() throws {
        workload.page(page)[100] ^= 1
        try workload.perform(operationsPerThread: 3000)
        workload.page(page)[100] ^= 1
        #expect(workload.corrupt == 1)
    }

    @Test("learns versions from the pages if no ledger has arrived", arguments: AccessPattern.allCases)
    func withoutLedger(pattern: AccessPattern) throws {
        let workload = try BuiltInWorkload(new: .small(pattern, pages: 100, writes: 1, hasLedger: false))
        try workload.perform(operationsPerThread: 2000)
        #expect(try workload.devices.save().first { $0.name == "ledger" }?.state == [])
        let moved = try workload.moved()
        #expect(moved.versions.allSatisfy { $0 == PageFormat.unknownVersion })
        try moved.perform(operationsPerThread: 50)
        try workload.perform(operationsPerThread: 50)
        #expect(moved.corrupt == 0)
        #expect(moved.isTwin(of: workload))
    }

    @Test("finds damaged and foreign pages without a ledger too")
    func damagedWithoutLedger() throws {
        let workload = try BuiltInWorkload(new: .small(.random, pages: 100, writes: 1, hasLedger: false))
        try workload.perform(operationsPerThread: 500)
        let written = workload.versions.indices.filter { workload.versions[$0] > 0 }
        workload.page(written[0])[2000] ^= 1
        workload.page(written[1]).copyBytes(from: workload.page(written[2]))
        workload.page(written[3])[8] ^= 1
        #expect(try workload.moved().corrupt == 3)
    }

    @Test("finds a wrong page at the destination too, since no operation repairs it", arguments: AccessPattern.allCases)
    func notMended(pattern: AccessPattern) throws {
        let workload = try BuiltInWorkload(new: .small(pattern, pages: 100, writes: 1))
        let page = try #require(workload.versions.firstIndex { $0 > 0 })
        workload.page(page)[4000] ^= 1
        try workload.perform(operationsPerThread: 2000)
        #expect(workload.memory.wrong.contains(page))
        #expect(try workload.moved().corrupt == 1)
    }
}
