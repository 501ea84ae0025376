import PageProtocol
import Testing

@Suite("A patch of a device's state")
struct StatePatchTests {
    @Test("turns the earlier state into the new one, whatever changed")
    func roundTrips() {
        for (oldCount, newCount, changes) in [
            (0, 0, 0), (0, 9, 0), (9, 0, 0), (10_000, 10_000, 0), (10_000, 10_000, 30), (10_000, 10_000, 9000),
            (5000, 10_000, 7), (10_000, 5000, 7),
        ] {
            let old = (0..<oldCount).map { _ in UInt8.random(in: 0...255) }
            var new = Array(old.prefix(newCount))
            new += (0..<newCount - new.count).map { _ in UInt8.random(in: 0...255) }
            for _ in 0..<changes { new[Int.random(in: 0..<newCount)] = .random(in: 0...255) }
            let patch = StatePatch.make(from: old, to: new)
            #expect(StatePatch.apply(patch, to: old, limit: newCount) == new)
            #expect(patch.count <= new.count + 12)
        }
    }

    @Test("is little larger than the bytes that changed")
    func isSmall() {
        let old = [UInt8](repeating: 7, count: 1 << 18)
        var new = old
        for page in stride(from: 0, to: 1 << 16, by: 100) { new[page * 4] = 8 }
        // One byte differs in each of 656 entries of four bytes.
        #expect(StatePatch.make(from: old, to: new).count == 4 + 656 * 9)
        #expect(StatePatch.make(from: old, to: old).count == 4)
    }

    @Test("that does not fit is refused")
    func refuses() {
        let old: [UInt8] = [1, 2, 3, 4]
        func apply(_ numbers: [UInt32], _ bytes: [UInt8] = [], limit: Int = 100) -> [UInt8]? {
            let patch = numbers.flatMap { number in (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }
            return StatePatch.apply(patch + bytes, to: old, limit: limit)
        }
        #expect(apply([4, 1, 2], [8, 9]) == [1, 8, 9, 4])
        #expect(apply([6]) == nil)
        #expect(apply([6, 4, 2], [5, 6]) == [1, 2, 3, 4, 5, 6])
        #expect(apply([6, 4, 1], [5]) == nil)
        #expect(apply([1 << 20], limit: 1 << 30) == nil)
        #expect(apply([2]) == [1, 2])
        #expect(apply([]) == nil)
        #expect(apply([4], [1]) == nil)
        #expect(apply([5], limit: 4) == nil)
        #expect(apply([.max], limit: 1 << 30) == nil)
        #expect(apply([4, 1, 2], [8]) == nil)
        #expect(apply([4, 3, 2], [8, 9]) == nil)
        #expect(apply([4, .max, 2], [8, 9]) == nil)
        #expect(apply([4, 1, 0]) == nil)
    }
}
