import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import SnapshotClient
import Testing

@testable import Snapshots

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ContentDigestTests {
    private func hex(_ digest: ContentDigest) -> String {
        digest.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// The digests of a file: over the spread, and over all pages.
    private func digests(of file: SparseFile) throws -> (spread: ContentDigest, full: ContentDigest) {
        let mapped = try MappedFile(file.path)
        return (try .spread(of: mapped), try .full(of: mapped))
    }

    /// The same digests, made by another program.
    private func digestsByPython(of file: SparseFile) throws -> [String] {
        let program = """
            import hashlib, struct, sys
            data = open(sys.argv[1], 'rb').read()
            size, mib = len(data) // 4096 * 4096, 1 << 20
            full = [(at, min(mib, size - at)) for at in range(0, size, mib)]
            between = size // 4096 - 512
            count = min(between, 256)
            pages = [(mib + between * i // count * 4096, 4096) for i in range(count)] if count > 0 else []
            spread = [(0, mib)] + pages + [(size - mib, mib)] if size > 2 * mib else full
            for name, pieces in (('spread', spread), ('full', full)):
                hashes = b''.join(hashlib.sha256(data[at:at + n]).digest() for at, n in pieces)
                head = b'pageferry ' + name.encode() + struct.pack('<Q', len(data))
                print(hashlib.sha256(head + hashes).hexdigest())
            """
        let (process, output) = (Process(), Pipe())
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = ["-c", program, file.path]
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return text.split(separator: "\n").map(String.init)
    }

    @Test(arguments: [4096, 4097, 1 << 20, 2 << 20, 2 << 20 + 4096, 3 << 20 + 100, 9 << 20])
    func `digests are as documented`(byteCount: Int) throws {
        let file = try SparseFile(byteCount: byteCount)
        try file.write(pages: stride(from: 0, to: byteCount / 4096, by: 3))
        let digests = try digests(of: file)
        #expect(try [hex(digests.spread), hex(digests.full)] == digestsByPython(of: file))
    }

    @Test func `a hole counts as zeros`() throws {
        let (sparse, written) = (try SparseFile(byteCount: 5 << 20), try SparseFile(byteCount: 5 << 20))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: written.path))
        try handle.write(contentsOf: [UInt8](repeating: 0, count: 5 << 20))
        for file in [sparse, written] { try file.write(pages: [3, 700]) }
        let digests = (try digests(of: sparse), try digests(of: written))
        #expect(digests.0 == digests.1)
    }

    @Test func `the full digest covers every page, and the spread digest some of them`() throws {
        let file = try SparseFile(byteCount: 8 << 20)
        let before = try digests(of: file)
        var unnoticed = 0
        for page in stride(from: 0, to: 2048, by: 97) {
            try file.write(pages: [page])
            let after = try digests(of: file)
            #expect(after.full != before.full, "page \(page)")
            if after.spread == before.spread { unnoticed += 1 }
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file.path))
            try handle.seek(toOffset: UInt64(page * 4096))
            try handle.write(contentsOf: [UInt8](repeating: 0, count: 4096))
        }
        #expect(try digests(of: file) == before)
        #expect((1...17).contains(unnoticed))
    }

    @Test(arguments: [1, 255, 256, 257, 512, 513, 514, 767, 768, 769, 2048, 1 << 28])
    func `a spread lies in order inside the file, and covers its first and last MiB`(pageCount: Int) throws {
        let byteCount = pageCount * 4096
        let pieces = ContentDigest.spreadPieces(of: byteCount)
        #expect(zip(pieces, pieces.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
        #expect(pieces.first?.lowerBound == 0 && pieces.last?.upperBound == byteCount)
        #expect(pieces.reduce(0) { $0 + $1.count } == min(byteCount, 3 << 20))
        #expect(pieces.allSatisfy { $0.lowerBound % 4096 == 0 && $0.upperBound % 4096 == 0 })
        guard byteCount > 2 << 20 else { return }
        #expect(pieces.first == 0..<1 << 20 && pieces.last == byteCount - 1 << 20..<byteCount)
    }
}
