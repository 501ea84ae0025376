import Guest
import Testing

@testable import Workloads

@Suite("A table filled with the lines of a file", .timeLimit(.minutes(2)))
struct TableTests {
    /// Short, long, empty and repeated lines, lines that are not UTF-8, and a last line without a newline.
    private static let lines: [[UInt8]] =
        (0..<3000).map { Array("line \($0 * 7919 % 1000)".utf8) }
        + [[], [], [0xFF, 0x00, 0x0D], [UInt8](repeating: 0x61, count: 999), [UInt8](repeating: 0x62, count: 1000)]
        + [[UInt8](repeating: 0x63, count: 1001), (0..<20000).map { UInt8(truncatingIfNeeded: $0 % 251 + 11) }]
        + [Array("the end".utf8)]

    private let file = Result { try TemporaryFile(Array(TableTests.lines.joined(separator: [0x0A]))) }

    private func workload(threads: Int = 3, writes: Double = 0.5) throws -> BuiltInWorkload {
        let load = try LineFile(reading: file.get().path)
        return try BuiltInWorkload(new: .small(.kv, pages: 150, threads: threads, writes: writes, load: load))
    }

    /// The line of a number according to the table.
    private func line(_ number: Int, of workload: BuiltInWorkload) -> [UInt8]? {
        let shard = workload.threads[number % workload.threads.count].shard(workload.memory.access(recordingIn: nil))
        var bytes: [UInt8] = []
        for piece in 0... {
            let key = KeyValueEntry.key(line: number, piece: piece)
            guard case .found(let entry, _) = shard.search(key) else { return nil }
            bytes += Array(entry.value)
            guard entry.continues else { break }
        }
        return bytes
    }

    private func entry(ofLine number: Int, in workload: BuiltInWorkload) throws -> (KeyValueEntry, page: Int) {
        let shard = workload.threads[number % workload.threads.count].shard(workload.memory.access(recordingIn: nil))
        guard case .found(let entry, let page) = shard.search(KeyValueEntry.key(line: number, piece: 0)) else {
            throw WorkloadError("line \(number) is missing")
        }
        return (entry, page)
    }

    @Test("has every line, whole and in its place", arguments: [1, 3])
    func everyLine(threads: Int) throws {
        let workload = try workload(threads: threads)
        #expect(workload.configuration.load?.lineCount == Self.lines.count)
        for (number, expected) in Self.lines.enumerated() {
            #expect(line(number, of: workload) == expected, "line \(number)")
        }
    }

    @Test("has every line after puts on both sides")
    func afterPuts() throws {
        let source = try workload(writes: 1)
        try source.run(operations: 3000)
        let destination = try source.moved()
        try destination.run(operations: 3000)
        let all = Verification.Lines(found: Self.lines.count, total: Self.lines.count)
        #expect(destination.verify() == Verification(pagesChecked: 150, corrupt: 0, lines: all))
        #expect(line(3006, of: destination) == Self.lines[3006])
        let puts = try (0..<3000).map { try entry(ofLine: $0, in: destination).0.putCount }.reduce(0, +)
        #expect(puts > 3000)
    }

    @Test("misses a line whose byte was flipped")
    func damagedLine() throws {
        let workload = try workload()
        let (entry, page) = try entry(ofLine: 77, in: workload)
        entry.base.storeBytes(of: 0x21, toByteOffset: KeyValueEntry.headerSize, as: UInt8.self)
        let lines = Verification.Lines(found: Self.lines.count - 1, total: Self.lines.count)
        #expect(workload.verify() == Verification(pagesChecked: 150, corrupt: 1, lines: lines))
        // The page's checksum is right again, so that only the line's own checksum shows the damage.
        workload.memory.format.seal(workload.page(page).baseAddress!, index: page, version: workload.versions[page])
        #expect(workload.verify() == Verification(pagesChecked: 150, corrupt: 1, lines: lines))
    }

    @Test("is wrong if a line was replaced, although the checksums of page and line are right")
    func exchangedLine() throws {
        let workload = try workload()
        let (entry, page) = try entry(ofLine: 77, in: workload)
        let key = entry.key
        Array("other".utf8).withUnsafeBytes { entry.write(key: key, value: $0, continues: false) }
        workload.memory.format.seal(workload.page(page).baseAddress!, index: page, version: workload.versions[page])
        let verification = try #require(workload.verify())
        #expect(verification.lines == Verification.Lines(found: Self.lines.count, total: Self.lines.count))
        #expect(verification.corrupt == 1)
    }

    @Test("is wrong in every page and line when all of its memory is zeros")
    func lost() throws {
        let workload = try workload()
        for page in 0..<150 { workload.page(page).initializeMemory(as: UInt8.self, repeating: 0) }
        let lines = Verification.Lines(found: 0, total: Self.lines.count)
        #expect(workload.verify() == Verification(pagesChecked: 150, corrupt: 150, lines: lines))
    }

    @Test("is searched to its end, whatever its pages hold")
    func garbage() throws {
        let workload = try workload()
        var random = RandomStream(seed: 1, stream: 1)
        for page in 0..<150 {
            for offset in 0..<4096 { workload.page(page)[offset] = UInt8(truncatingIfNeeded: random.next()) }
        }
        let verification = try #require(workload.verify())
        #expect(verification.corrupt == 150)
        try workload.perform(operationsPerThread: 500)
    }

    @Test("is refused with the necessary memory if the lines do not fit")
    func tooLarge() throws {
        let load = try LineFile(reading: file.get().path)
        let error = #expect(throws: WorkloadError.self) {
            _ = try BuiltInWorkload(new: .small(.kv, pages: 30, threads: 3, load: load))
        }
        let message = try #require(error?.description)
        #expect(message.contains("do not fit into 122880 bytes of memory; give at least 1 MiB"))
        let enough = try BuiltInWorkload(new: .small(.kv, pages: 256, threads: 3, load: load))
        #expect(enough.corrupt == 0)
    }

    @Test("is refused for a file that cannot be read, is empty, or has changed")
    func badFile() throws {
        func message(_ path: String) -> String? {
            #expect(throws: WorkloadError.self) { _ = try LineFile(reading: path) }?.description
        }
        #expect(message("/nonexistent")?.contains("cannot read /nonexistent: No such file") == true)
        for path in ["/tmp", "/dev/null"] {
            #expect(message(path) == "cannot read \(path): Invalid argument; give a regular file")
        }
        let empty = try TemporaryFile([])
        #expect(message(empty.path)?.contains("it has 0 lines") == true)
        var load = try LineFile(reading: file.get().path)
        load.digest ^= 1
        let error = #expect(throws: WorkloadError.self) { _ = try BuiltInWorkload(new: .small(.kv, load: load)) }
        #expect(error?.description.contains("changed while it was being read") == true)
    }

    @Test("has generated keys without a file, and finds each of them")
    func synthetic() throws {
        let workload = try BuiltInWorkload(new: .small(.kv, pages: 40, threads: 3, writes: 1))
        try workload.perform(operationsPerThread: 500)
        let plan = KeyValuePlan(workload.configuration)
        #expect(plan.keyCount == 3 * (13 * 31 * 6 / 10))
        for key in 0..<plan.keyCount {
            let entry = try entry(ofLine: key, in: workload).0
            #expect(entry.isWhole && entry.length == KeyValueEntry.syntheticLength)
        }
        #expect(workload.verify() == Verification(pagesChecked: 40, corrupt: 0))
    }
}
