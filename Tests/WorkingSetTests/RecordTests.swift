import Foundation
import Testing
import WorkingSet

@Suite(.timeLimit(.minutes(1)))
struct RecordTests {
    private func reason(_ bytes: [UInt8]) -> String? {
        do {
            _ = try Samples.decode(bytes)
            return nil
        } catch {
            return error.description
        }
    }

    @Test func `a record holds the whole working set`() throws {
        let sets = [
            try Samples.example(), try WorkingSet(pages: [], of: Samples.memory(), window: 0),
            try WorkingSet(pages: (0..<256).reversed(), of: Samples.memory(pageSize: 2 << 20), window: .max),
        ]
        for set in sets {
            let record = set.encode()
            #expect(record.count == WorkingSet.Record.byteCount(ofRuns: set.runs.count))
            #expect(try Samples.decode(record) == set)
        }
    }

    @Test func `a record that another program made by the article is read`() throws {
        #expect(try Samples.decode(RawRecord(runs: [(16, 3), (3, 1)]).bytes) == Samples.example())
    }

    @Test func `every prefix of a record and every longer text is refused`() throws {
        let record = try Samples.example().encode()
        for count in record.indices {
            #expect(reason(Array(record[..<count]))?.hasPrefix("it is cut short: it has \(count) bytes") == true)
        }
        #expect(reason(record + [0])?.hasPrefix("it is too long") == true)
    }

    @Test func `every changed byte is noticed`() throws {
        let record = try Samples.example().encode()
        for index in record.indices {
            for change: UInt8 in [1, 0x80, 0xff] {
                var changed = record
                changed[index] ^= change
                #expect(reason(changed) != nil, "byte \(index)")
            }
        }
    }

    @Test func `the fault of a record is reported in one line, before anything is allocated`() {
        let cases: [(RawRecord, String)] = [
            (RawRecord(magic: 1), "it is no record of a working set: it does not begin with 'PGWS'"),
            (RawRecord(version: 2), "it has version 2, and only version 1 can be read; record it again"),
            (RawRecord(reserved: 1), "it is damaged: its reserved fields are not 0"),
            (RawRecord(reservedAtTheEnd: 1), "it is damaged: its reserved fields are not 0"),
            (RawRecord(pageSize: 8192), "it says that the page size is 8192, not 4096 or 2097152"),
            (
                RawRecord(byteCount: 4097),
                "it says that the snapshot has 4097 bytes, which are not 1 to 4294967295 pages of 4096"
            ),
            (RawRecord(runCount: 4_194_305), "it says that it has 4194305 runs, more than 4194304"),
            (RawRecord(runCount: .max), "it says that it has 4294967295 runs, more than 4194304"),
            (
                RawRecord(runCount: 4_194_304, runs: [(0, 1)]),
                "it is cut short: it has 44 bytes, and 4194304 runs take 33554468"
            ),
            (RawRecord(runs: [(0, 1), (5, 0)]), "its run 1 is empty"),
            (RawRecord(runs: [(255, 2)]), "its run 0 ends beyond the 256 pages of its snapshot"),
            (RawRecord(runs: [(.max, .max)]), "its run 0 ends beyond the 256 pages of its snapshot"),
            (RawRecord(runs: [(0, 2), (2, 1)]), "its run 1 continues the run before and is not joined with it"),
            (
                RawRecord(byteCount: (1 << 44) - 4096, runs: [(0, .max), (1, .max - 1)]),
                "it has more pages than the 4294967295 of its snapshot"
            ),
            (RawRecord(runs: [(10, 4), (0, 1), (13, 2)]), "it has page 13 twice"),
            (RawRecord(runs: [(10, 4), (0, 200)]), "it has page 10 twice"),
        ]
        for (record, expected) in cases { #expect(reason(record.bytes) == expected) }
    }

    /// Checks that any bytes give a one-line reason, or a value that encodes to the same bytes.
    private func judge(_ bytes: [UInt8]) -> Bool {
        do {
            return try Samples.decode(bytes).encode() == bytes
        } catch {
            return !error.description.isEmpty && !error.description.contains(where: \.isNewline)
        }
    }

    @Test func `seeded random bytes are refused or survive a round trip`() throws {
        var generator = SeededGenerator(state: 0x5047_5753)
        var failures = 0
        var read = 0
        for _ in 0..<5_000 {
            if !judge(generator.bytes(Int.random(in: 0...100, using: &generator))) { failures += 1 }
            // The record is sound except for its runs, which may lie near or beyond the bounds.
            let runs = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                (
                    first: UInt32.random(in: 0...258, using: &generator),
                    count: UInt32.random(in: 0...40, using: &generator)
                )
            }
            let bytes = RawRecord(runs: runs).bytes
            if !judge(bytes) { failures += 1 }
            // The same runs in the largest memory, where sums of pages are near the bounds of their type.
            let large = runs.map { run in
                (first: run.first << 24, count: run.count << UInt32.random(in: 0...28, using: &generator))
            }
            if !judge(RawRecord(byteCount: (1 << 44) - 4096, runs: large).bytes) { failures += 1 }
            if reason(bytes) == nil { read += 1 }
        }
        #expect(failures == 0)
        #expect(read > 500)
    }

    @Test func `a record of four million scattered pages is made, read, compared and merged quickly`() throws {
        let memory = try WorkingSet.Memory(pageSize: 4096, byteCount: 64 << 30)
        // Every other page, one run more than a record may have.
        let count = UInt32(WorkingSet.maxRuns)
        let set = try WorkingSet(pages: stride(from: 0, through: 2 * count, by: 2), of: memory, window: 1)
        #expect(set.pageCount == count)
        #expect(set.runs.last == WorkingSet.Run(first: 2 * count - 2, count: 1))
        let record = set.encode()
        #expect(record.count == WorkingSet.Record.maxByteCount)
        let read = try Samples.decode(record)
        #expect(read == set)
        let other = try WorkingSet(pages: [1, 2], of: memory, window: 1)
        #expect(read.jaccardIndex(with: other) == 1 / Double(count + 1))
        // The common pages come first: page 2, then page 1, which joins no run; the last pages are left out.
        let merged = try WorkingSet.merging([read, other])
        #expect(merged.runs.count == WorkingSet.maxRuns)
        #expect(merged.runs[0].first == 2)
    }
}
