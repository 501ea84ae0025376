import Foundation
import Telemetry
import Testing

@Suite("The times at which memory arrives")
struct ArrivalTimesTests {
    @Test("are those of the first sample in which half of a cell was here")
    func half() {
        let times = ArrivalTimes([("ram", 4096, 4096), ("rom", 3, 4096)])
        #expect(times.arrivals.pagesPerCell == 4 && times.arrivals.at == [UInt64?](repeating: nil, count: 1025))
        // The pages of ram arrive in their order.
        var here = 1
        func sample(_ milliseconds: UInt64) {
            times.sample(at: milliseconds) { pages, region in
                region == 1 ? 1 : max(0, min(here, pages.upperBound) - pages.lowerBound)
            }
        }
        sample(5)
        #expect(times.arrivals.at.allSatisfy { $0 == nil })
        here = 6
        sample(10)
        sample(20)
        here = 4096
        sample(30)
        #expect(Array(times.arrivals.at.prefix(3)) == [10, 10, 30])
        // One of three pages is less than half.
        #expect(times.arrivals.at.last == .some(nil))
        #expect(times.arrivals.regions.map(\.firstCell) == [0, 1024])
    }

    @Test("look no more at cells that have a time")
    func looks() {
        let times = ArrivalTimes([("ram", 8, 4096)])
        times.sample(at: 1) { pages, _ in pages.lowerBound < 6 ? 1 : 0 }
        var looked: [Int] = []
        times.sample(at: 2) { pages, _ in
            looked.append(pages.lowerBound)
            return 0
        }
        #expect(looked == [6, 7])
    }

    @Test(
        "are refused from an agent or a file if they are not those of the cells",
        arguments: [
            (1, [0], [1], 2), (1, [0, 2], [1, 1], 2), (0, [0], [1], 1), (1, [1], [1], 1), (1, [0], [-1], 0),
            (1, [0, 0], [0, Int.max], 1), (1, [0], [5000], 5000), (Int.max, [0], [1], 1),
        ]
    )
    func unsound(pagesPerCell: Int, first: [Int], cells: [Int], count: Int) throws {
        let regions = zip(first, cells).map {
            LiveMap.Region(firstCell: $0, cells: $1, name: "", pages: $1, pageSize: 4096)
        }
        let arrivals = Report.Arrivals(
            pagesPerCell: pagesPerCell,
            regions: regions,
            at: [UInt64?](repeating: 7, count: count)
        )
        #expect(!arrivals.isSound)
        var side = AgentReport(instance: "")
        side.destination = AgentReport.Destination()
        side.destination?.arrivals = arrivals
        #expect(throws: AgentReport.Contradiction.self) { try side.requireSound() }
        var report = Report()
        report.arrivals = arrivals
        let json = try report.json()
        #expect(throws: Report.Unreadable.self) { try Report(json: Data(json.utf8)) }
    }
}
