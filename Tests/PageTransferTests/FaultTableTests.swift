import LinuxSystem
import OwnThread
import PageProtocol
import Synchronization
import Testing

@testable import PageFetcher

/// Faults, requests ahead, arrivals and SENT in, decisions out: no memory, no sockets.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FaultTableTests {
    /// A table that all threads of a test use.
    ///
    /// `#expect` calls no method of a noncopyable value.
    private final class Table: Sendable {
        let faults: FaultTable

        init(_ pageCounts: Int...) throws {
            faults = try FaultTable(resident: pageCounts.map { try PageBitmap(pageCount: $0) })
        }

        func fault(_ page: Int, region: Int = 0, now: UInt64 = 1) -> FaultOutcome {
            faults.fault(Fault(region: region, page: page, thread: 0), now: now)
        }

        func look(_ page: Int) -> FaultOutcome { faults.look(at: Fault(region: 0, page: page, thread: 0)) }

        func record(_ page: Int, after found: FaultOutcome) -> FaultOutcome {
            faults.record(Fault(region: 0, page: page, thread: 0), after: found, now: 1)
        }

        func confirm(_ page: Int) -> Bool { faults.confirm(page, region: 0) }

        func expect(_ pages: Range<Int>) -> Int { faults.expect(pages, region: 0) }

        /// Pages arrive, and their faults end.
        ///
        /// - Returns: the times of the faults.
        @discardableResult
        func arrive(_ pages: Range<Int>, region: Int = 0) -> [UInt64] {
            guard faults.arrived(pages, region: region).areFaultsInFlight else { return [] }
            return pages.compactMap { faults.endFaults(on: $0, region: region) }
        }

        /// SENT names pages.
        ///
        /// - Returns: the pages to request; nil if SENT is refused.
        func leave(_ pages: Range<Int>) -> [Int]? {
            var waited: [Int] = []
            return faults.left(pages, region: 0) { waited.append($0) } ? waited : nil
        }

        func added(_ pages: Range<Int>) -> Int { faults.arrived(pages, region: 0).added }
        func isMissing(_ page: Int) -> Bool { faults.isMissing(page, region: 0) }
        func isWanted(_ pages: Range<Int>) -> Bool { faults.isWanted(run(pages, 0)) }
        func isResident(_ pages: Range<Int>, region: Int = 0) -> Bool { faults.isResident(run(pages, region)) }

        private func run(_ pages: Range<Int>, _ region: Int) -> PageRun {
            PageRun(region: UInt32(region), count: UInt32(pages.count), first: UInt64(pages.lowerBound))
        }

        func remove(_ pages: Range<Int>) -> Int { faults.removed(pages, region: 0) }

        /// The runs that are wanted and not resident.
        func wantedRuns(region: Int = 0, atMost longest: Int = 16) -> [Range<Int>] {
            var runs: [Range<Int>] = []
            while let run = faults.wantedRun(from: runs.last?.upperBound ?? 0, region: region, atMost: longest) {
                runs.append(run)
            }
            return runs
        }
    }

    @Test func `a page is requested by its first fault, and its arrival ends that fault`() throws {
        let table = try Table(64)
        #expect(table.fault(3, now: 7) == .request)
        #expect(table.fault(3, now: 8) == .asked)
        #expect(table.faults.inFlightCount == 1)
        #expect(table.faults.oldest.map { [$0.region, $0.page, Int($0.since)] } == [0, 3, 7])
        #expect(table.arrive(2..<5) == [7])
        #expect(table.faults.inFlightCount == 0)
        #expect(table.faults.oldest == nil)
    }

    @Test func `a page that the push brings after its request is resident for each later fault and arrival`() throws {
        let table = try Table(64)
        #expect(table.fault(3) == .request)
        table.arrive(0..<16)
        #expect(table.fault(3) == .resident)
        #expect(table.fault(4) == .resident)
        #expect(table.faults.inFlightCount == 0)
        #expect(table.expect(0..<16) == 0)
        let again = table.faults.arrived(3..<17, region: 0)
        #expect(again.added == 1 && !again.areFaultsInFlight)
    }

    @Test func `pages that were resident from the start are never requested`() throws {
        let resident = try PageBitmap(pageCount: 64)
        _ = resident.insert(run: 8..<16)
        let table = try FaultTable(resident: [resident])
        let outcome = table.fault(Fault(region: 0, page: 8, thread: 0), now: 1)
        #expect(outcome == .resident)
        let asked = table.expect(4..<12, region: 0)
        #expect(asked == 4)
    }

    @Test func `a page that was requested ahead is not requested by its first fault`() throws {
        let table = try Table(64)
        #expect(table.expect(2..<10) == 8)
        #expect(table.fault(4, now: 5) == .expected)
        #expect(table.fault(4, now: 6) == .asked)
        #expect(table.faults.inFlightCount == 1)
        #expect(table.arrive(2..<10) == [5])
        let unawaited = table.faults.unawaited(2..<10, added: 8, region: 0)
        #expect(unawaited == 7)
    }

    @Test func `a request ahead ends before the first page that is wanted or resident`() throws {
        let table = try Table(64)
        #expect(table.fault(5) == .request)
        table.arrive(8..<9)
        #expect(table.expect(2..<10) == 3)
        #expect(table.expect(5..<10) == 0)
        #expect(table.expect(6..<10) == 2)
        #expect(table.expect(8..<10) == 0)
        #expect(table.expect(9..<9) == 0)
        #expect(table.wantedRuns() == [2..<8])
    }

    @Test func `a page that becomes resident before it is requested ahead is not requested`() throws {
        let table = try Table(64)
        #expect(table.isMissing(6))
        table.arrive(6..<7)
        #expect(table.expect(6..<8) == 0)
        #expect(table.expect(7..<8) == 1)
    }

    @Test func `a page that the source leaves to the push is requested by its first fault`() throws {
        let table = try Table(64)
        #expect(table.expect(2..<6) == 4)
        #expect(table.leave(2..<6) == [])
        #expect(table.fault(4) == .request)
        #expect(table.fault(4) == .asked)
        #expect(table.fault(5) == .request)
    }

    @Test func `SENT requests the pages that faults wait for, but none that has arrived`() throws {
        let table = try Table(64)
        #expect(table.expect(2..<8) == 6)
        for page in [3, 5, 6] { #expect(table.fault(page) == .expected) }
        table.arrive(5..<6)
        #expect(table.leave(2..<8) == [3, 6])
        #expect(table.fault(3) == .asked)
        table.arrive(3..<4)
        table.arrive(6..<7)
        #expect(table.faults.inFlightCount == 0)
    }

    @Test func `SENT answers each request ahead once, and no request of a fault`() throws {
        let table = try Table(64)
        #expect(table.leave(0..<1) == nil)
        #expect(table.expect(2..<6) == 4)
        #expect(table.leave(2..<4) == [])
        #expect(table.leave(3..<5) == nil)
        #expect(table.fault(20) == .request)
        #expect(table.leave(20..<21) == nil)
    }

    @Test func `removed pages end their faults, are resident, and count once`() throws {
        let table = try Table(64)
        #expect(table.fault(1) == .request)
        #expect(table.expect(2..<4) == 2)
        #expect(table.fault(9) == .request)
        #expect(table.remove(0..<4) == 4)
        #expect(table.faults.inFlightCount == 1)
        for page in 0..<4 { #expect(table.fault(page) == .resident) }
        #expect(table.expect(0..<4) == 0)
        #expect(table.remove(0..<5) == 1)
        #expect(table.added(0..<5) == 0)
        #expect(table.wantedRuns() == [9..<10])
    }

    @Test func `the runs to request again are wanted and not resident`() throws {
        let table = try Table(64, 130)
        #expect(table.wantedRuns() == [])
        for page in [0, 1, 2, 3, 4, 62, 63] { #expect(table.fault(page) == .request) }
        #expect(table.expect(10..<12) == 2)
        table.arrive(2..<3)
        #expect(table.wantedRuns() == [0..<2, 3..<5, 10..<12, 62..<64])
        #expect(table.wantedRuns(atMost: 1).count == 8)
        #expect(table.isWanted(0..<5))
        #expect(!table.isWanted(1..<6))
        #expect(table.fault(129, region: 1) == .request)
        #expect(table.wantedRuns(region: 1) == [129..<130])
        table.arrive(128..<130, region: 1)
        #expect(table.isResident(128..<130, region: 1))
        #expect(!table.isResident(2..<4))
    }

    // MARK: The steps of two threads, in every order that matters

    @Test func `a page that becomes resident between the look at its fault and the request is not requested`() throws {
        let table = try Table(64)
        #expect(table.look(3) == .request)
        // No fault is recorded yet that the arrival could end.
        #expect(table.arrive(3..<4) == [])
        #expect(table.record(3, after: .request) == .resident)
        #expect(table.faults.inFlightCount == 0)
        #expect(table.look(4) == .request)
        #expect(table.remove(4..<5) == 1)
        #expect(table.record(4, after: .request) == .resident)
        #expect(table.faults.inFlightCount == 0)
        #expect(table.expect(8..<9) == 1)
        #expect(table.look(8) == .expected)
        #expect(table.arrive(8..<9) == [])
        #expect(table.record(8, after: .expected) == .resident)
        #expect(table.faults.inFlightCount == 0)
    }

    @Test func `a second fault that comes between the look at the first one and its record requests nothing`() throws {
        let table = try Table(64)
        #expect(table.look(3) == .request)
        #expect(table.fault(3) == .asked)
        #expect(table.record(3, after: .request) == .request)
        #expect(table.expect(8..<9) == 1)
        #expect(table.look(8) == .expected)
        #expect(table.fault(8) == .asked)
        #expect(table.record(8, after: .expected) == .expected)
        #expect(table.faults.inFlightCount == 2)
    }

    @Test func `SENT between the look at a fault and its record lets both request the page`() throws {
        let table = try Table(64)
        #expect(table.expect(2..<6) == 4)
        #expect(table.look(3) == .expected)
        #expect(table.leave(2..<6) == [3])
        #expect(table.record(3, after: .expected) == .request)
    }

    @Test func `a fault that overtakes a request ahead requests the page, and the request ahead is taken back`() throws
    {
        let table = try Table(64)
        table.faults.announce(3, region: 0)
        #expect(table.fault(3) == .request)
        // A second fault is recorded too, and leaves the request to the first one.
        #expect(table.fault(3) == .expected)
        #expect(!table.confirm(3))
        #expect(table.faults.inFlightCount == 2)
        #expect(table.leave(3..<4) == nil)
        table.arrive(3..<4)
        #expect(table.faults.inFlightCount == 0)

        table.faults.announce(5, region: 0)
        #expect(table.fault(5) == .request)
        #expect(!table.confirm(5))
        #expect(table.fault(5) == .asked)
        #expect(table.faults.inFlightCount == 1)
    }

    // MARK: Two threads

    /// The pages that two threads meet on in one round: one thread goes up and the other goes down.
    private static let round = 64
    private static let rounds = 1000

    /// The outcome of each page's fault, or the pages that the other thread reports; each is written by one thread.
    private final class Outcomes: Sendable {
        private let outcomes = Mutex<[Int: FaultOutcome]>([:])
        private let others = Mutex<Set<Int>>([])

        func note(_ outcome: FaultOutcome, _ page: Int) { outcomes.withLock { $0[page] = outcome } }
        func note(other page: Int) { others.withLock { _ = $0.insert(page) } }

        func isOther(_ page: Int) -> Bool { others.withLock { $0.contains(page) } }
        var all: [Int: FaultOutcome] { outcomes.withLock { $0 } }
    }

    /// Lets two threads begin each round together.
    private func inRounds(
        _ first: @Sendable (Range<Int>) -> Void,
        _ second: @escaping @Sendable (Range<Int>) -> Void
    ) throws {
        let gate = Gate()
        let other = try JoinedThread(name: "second") {
            for round in 0..<Self.rounds {
                gate.pass(round)
                second(round * Self.round..<(round + 1) * Self.round)
            }
        }
        for round in 0..<Self.rounds {
            gate.pass(round)
            first(round * Self.round..<(round + 1) * Self.round)
        }
        other.join()
    }

    private final class Gate: Sendable {
        private let came = Atomic<Int>(0)

        /// Waits until both threads have come to the round.
        func pass(_ round: Int) {
            came.add(1, ordering: .acquiringAndReleasing)
            while came.load(ordering: .acquiring) < 2 * (round + 1) { JoinedThread.yield() }
        }
    }

    @Test func `of two threads that fault on a page, one requests it`() throws {
        let table = try Table(Self.rounds * Self.round)
        let (first, second) = (Outcomes(), Outcomes())
        try inRounds(
            { pages in for page in pages { first.note(table.fault(page), page) } },
            { pages in for page in pages.reversed() { second.note(table.fault(page), page) } }
        )
        let (ones, others) = (first.all, second.all)
        #expect(ones.count == Self.rounds * Self.round && others.count == ones.count)
        #expect(ones.allSatisfy { Set([$0.value, others[$0.key]]) == [.request, .asked] })
    }

    @Test func `a fault beside the arrival of its page ends`() throws {
        let table = try Table(Self.rounds * Self.round)
        try inRounds(
            { pages in for page in pages { _ = table.fault(page) } },
            { pages in for page in pages.reversed() { table.arrive(page..<page + 1) } }
        )
        #expect(table.faults.inFlightCount == 0)
    }

    @Test func `a page is requested by its fault or ahead of it, but not by both`() throws {
        let table = try Table(Self.rounds * Self.round)
        let faults = Outcomes()
        try inRounds(
            { pages in for page in pages { faults.note(table.fault(page), page) } },
            { pages in
                for page in pages.reversed() where table.expect(page..<page + 1) == 1 { faults.note(other: page) }
            }
        )
        #expect(faults.all.allSatisfy { $0.value == (faults.isOther($0.key) ? .expected : .request) })
    }

    @Test func `a page that a fault waits for while SENT leaves it to the push is requested`() throws {
        let table = try Table(Self.rounds * Self.round)
        #expect(table.expect(0..<Self.rounds * Self.round) == Self.rounds * Self.round)
        let faults = Outcomes()
        try inRounds(
            { pages in for page in pages { faults.note(table.fault(page), page) } },
            { pages in
                for page in pages.reversed() {
                    for waited in table.leave(page..<page + 1) ?? [] { faults.note(other: waited) }
                }
            }
        )
        #expect(faults.all.allSatisfy { $0.value == .request || $0.value == .expected && faults.isOther($0.key) })
    }
}
