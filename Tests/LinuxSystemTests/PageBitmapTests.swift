import LinuxSystem
import OwnThread
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct PageBitmapTests {
    @Test(arguments: [1, 63, 64, 65, 200, 4096 * 8 + 3])
    func `a bitmap equals a set after any operations`(pageCount: Int) throws {
        let bitmap = try PageBitmap(pageCount: pageCount)
        var model: Set<Int> = []
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let page = Int.random(in: 0..<pageCount, using: &random)
            switch Int.random(in: 0..<5, using: &random) {
            case 0: #expect(bitmap.insert(page) == model.insert(page).inserted)
            case 1: #expect(bitmap.remove(page) == (model.remove(page) != nil))
            case 2:
                let run = page..<min(pageCount, page + Int.random(in: 0...200, using: &random))
                #expect(bitmap.insert(run: run) == run.filter { !model.contains($0) }.count)
                model.formUnion(run)
            case 3: #expect(bitmap.contains(page) == model.contains(page))
            default: #expect(bitmap.firstClear(from: page) == (page..<pageCount).first { !model.contains($0) })
            }
            #expect(bitmap.count == model.count)
        }
        #expect((0..<pageCount).allSatisfy { bitmap.contains($0) == model.contains($0) })
    }

    @Test func `a bitmap is full when it has the last page`() throws {
        let bitmap = try PageBitmap(pageCount: 130)
        #expect(bitmap.insert(run: 0..<129) == 129)
        #expect(!bitmap.isFull)
        #expect(bitmap.firstClear(from: 0) == 129)
        bitmap.insert(129)
        #expect(bitmap.isFull)
        #expect(bitmap.firstClear(from: 0) == nil)
        #expect(bitmap.firstClear(from: 130) == nil)
    }

    @Test func `each page counts once when several threads insert it`() throws {
        let pageCount = 20_000
        let bitmap = try PageBitmap(pageCount: pageCount)
        let counts = Counts()
        let group = ThreadGroup()
        for thread in 0..<4 {
            try group.run("insert") {
                var added = 0
                var page = 0
                while page < pageCount {
                    if thread % 2 == 0 {
                        added += bitmap.insert(page) ? 1 : 0
                        page += 1
                    } else {
                        let end = min(pageCount, page + 77)
                        added += bitmap.insert(run: page..<end)
                        page = end
                    }
                }
                counts.add(added)
            }
        }
        group.join()
        #expect(counts.sum == pageCount)
        #expect(bitmap.count == pageCount)
        #expect(bitmap.isFull)
    }

    @Test func `a run is clear if none of its bits is set`() throws {
        let bitmap = try PageBitmap(pageCount: 300)
        #expect(bitmap.isClear(0..<300))
        for page in [63, 64, 130, 299] {
            bitmap.insert(page)
            for first in 0...page {
                #expect(bitmap.isClear(first..<page), "\(first) to \(page)")
                #expect(!bitmap.isClear(first..<page + 1), "\(first) through \(page)")
            }
            #expect(bitmap.isClear(page + 1..<300))
            bitmap.remove(page)
        }
        #expect(bitmap.isClear(5..<5))
    }
}
