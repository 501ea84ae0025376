import Foundation
import Telemetry
import Testing

@Suite("The map of a memory")
struct PageGridTests {
    @Test("has at most 2048 cells beside those of small regions, and each region begins with its own")
    func cells() throws {
        let grid = PageGrid([("ram", 1 << 20, 4096), ("rom", 3, 2 << 20)])
        let map = grid.map(present: { _, _ in 0 }, asked: { _, _ in 0 })
        #expect(map.pagesPerCell == 512 && map.counts.count == 6 * 2049)
        #expect(map.regions.map(\.firstCell) == [0, 2048] && map.regions.map(\.name) == ["ram", "rom"])
        // A cell stands for 512 pages, but this region has three.
        #expect(map.regions.map(\.pages) == [1 << 20, 3] && map.regions.map(\.pageSize) == [4096, 2 << 20])
        // Everything is missing.
        #expect(stride(from: 0, to: map.counts.count, by: 6).allSatisfy { map.counts[$0] == 255 })
        let small = PageGrid([("ram", 100, 4096)]).map(present: { _, _ in 0 }, asked: { _, _ in 0 })
        #expect(small.pagesPerCell == 1 && small.counts.count == 600)
    }

    @Test("shows the share of each kind, also of runs that cross cells")
    func shares() {
        let grid = PageGrid([("ram", 4096, 4096)])
        grid.note(0..<3, region: 0, as: .pushed)
        grid.note(3..<4, region: 0, as: .demand)
        grid.note(4..<5, region: 0, as: .zero)
        let map = grid.map(present: { pages, _ in max(0, min(5, pages.upperBound) - pages.lowerBound) }) { pages, _ in
            pages.contains(5) ? 1 : 0
        }
        #expect(map.pagesPerCell == 2)
        //                                 missing, asked, demand, prefetched, pushed, zero
        #expect(Array(map.counts[0..<6]) == [0, 0, 0, 0, 255, 0])
        #expect(Array(map.counts[6..<12]) == [0, 0, 127, 0, 127, 0])
        #expect(Array(map.counts[12..<18]) == [0, 127, 0, 0, 0, 127])
        #expect(Array(map.counts[18..<24]) == [255, 0, 0, 0, 0, 0])
    }

    @Test("never shows more than a cell has, although pages are sent again after a link broke")
    func again() {
        let grid = PageGrid([("ram", 1, 4096)])
        for _ in 0..<3 { grid.note(0..<1, region: 0, as: .pushed) }
        grid.note(0..<1, region: 0, as: .demand)
        let map = grid.map(present: { pages, _ in pages.count }, asked: { _, _ in 0 })
        #expect(map.counts == [0, 0, 255, 0, 0, 0])
    }

    @Test("is told by the cells that have changed")
    func changes() throws {
        let grid = PageGrid([("ram", 8, 4096)])
        var present = 0
        func map() -> LiveMap {
            grid.map(present: { pages, _ in pages.lowerBound < present ? 1 : 0 }, asked: { _, _ in 0 })
        }
        let before = map()
        #expect(before.changes(since: before)?.from == [])
        grid.note(0..<2, region: 0, as: .prefetched)
        present = 2
        let changes = try #require(map().changes(since: before))
        #expect(changes.from == [0, 1] && changes.counts == [0, 0, 0, 255, 0, 0, 0, 0, 0, 255, 0, 0])
        // The map of another memory is sent whole.
        let other = PageGrid([("ram", 9, 4096)]).map(present: { _, _ in 0 }, asked: { _, _ in 0 })
        #expect(other.changes(since: before) == nil)
        let json = try JSONSerialization.jsonObject(with: JSONEncoder().encode(map())) as? [String: Any] ?? [:]
        #expect(Set(json.keys) == ["cells", "pages_per_cell", "regions", "counts"])
    }

    @Test("has the bytes of each connection beside it")
    func lanes() {
        let bytes = LaneBytes()
        #expect(bytes.lanes.isEmpty)
        bytes.add(5, kind: .urgent, index: 0)
        bytes.add(7, kind: .push, index: 63)
        bytes.add(7, kind: .push, index: 63)
        #expect(bytes.lanes.map(\.bytes) == [5, 14])
        #expect(bytes.lanes.map { "\($0.name.kind) \($0.name.index)" } == ["urgent 0", "push 63"])
    }
}
