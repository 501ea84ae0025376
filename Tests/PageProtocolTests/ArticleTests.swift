import Compression
import Foundation
import Identity
import PageProtocol
import Testing

/// Compares the article's examples with the encoder's output, in the article's order.
@Suite struct ArticleTests {
    private static let requested = PageRun(region: 0, count: 1, first: 300)
    private static let pushed = PageRun(region: 0, count: 2, first: 300)
    private static let ahead = PageRun(region: 0, count: 16, first: 300)
    private static let zeros = PageRun(region: 1, count: 3, first: 0)
    private static let token: RunToken = 0x0102_0304_0506_0708

    private func expected() throws -> [[UInt8]] {
        let devices = [DeviceEntry(name: "cpu0", byteCount: 5), DeviceEntry(name: "clock", byteCount: 0)]
        return [
            try ControlMessage.hello(Samples.hello).encode(),
            Join(lane: .urgent, migration: Samples.migration, nonce: Samples.nonce).encode(),
            try ControlMessage.regions(guest: Samples.guest).encode(),
            try ControlMessage.devices(devices).encode(),
            try ControlMessage.deviceData(Array("state".utf8)).encode(),
            try ControlMessage.ping(7).encode(),
            try ControlMessage.run(token: Self.token, epoch: 3).encode(),
            try ControlMessage.startFailed(token: Self.token, reason: "disk lock held").encode(),
            try ControlMessage.complete.encode(),
            try ControlMessage.slices(Samples.slices).encode(),
            try ControlMessage.snapshot(Samples.identity).encode(),
            encoded(.pageRequest(Self.requested)),
            encoded(.pages(Self.pushed, pageSize: 4096)),
            encoded(.zeroes(Self.zeros)),
            encoded(.probeReply),
            encoded(.aheadRequest(Self.ahead)),
            encoded(.sent(Self.pushed)),
            encoded(.compressed(Self.ahead, by: .zstd, byteCount: 16_908)),
        ]
    }

    private func article() throws -> String {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        let path = "../../Sources/Values/PageProtocol/PageProtocol.docc/TheWire.md"
        return try String(contentsOf: tests.appendingPathComponent(path), encoding: .utf8)
    }

    /// The bytes of every block fenced as `hex`, from before the bar of each line.
    private func examples(in article: String) throws -> [[UInt8]] {
        try article.components(separatedBy: "```hex\n").dropFirst().map { block in
            let lines = block.prefix(upTo: block.range(of: "```")?.lowerBound ?? block.endIndex).split(separator: "\n")
            return try lines.flatMap { line in
                try line.prefix { $0 != "|" }.split(separator: " ").map { try #require(UInt8($0, radix: 16)) }
            }
        }
    }

    @Test func theExamplesAreWhatTheEncoderMakes() throws {
        let examples = try examples(in: article())
        let expected = try expected()
        #expect(examples.count == expected.count)
        for (example, frame) in zip(examples, expected) {
            #expect(example == frame)
        }
    }

    @Test func theTablesNameEveryFrameWithItsKindAndLength() throws {
        let rows = try article().split(separator: "\n").map { $0.split(separator: "|") }
        for kind in FrameKind.allCases where kind != .join {
            let number = "0x" + (kind.rawValue < 16 ? "0" : "") + String(kind.rawValue, radix: 16)
            let row = rows.first { $0.count == 5 && $0[0].contains(number) && $0[1] == " \(kind) " }
            let length = try #require(row, "\(kind)")[4].trimmingCharacters(in: .whitespaces)
            let bounds = kind.payloadBounds
            let text = bounds.count == 1 ? "\(bounds.lowerBound)" : "\(bounds.lowerBound) to \(bounds.upperBound)"
            #expect(length == text || kind == .pages, "\(kind)")
        }
    }

    @Test func theArticleQuotesTheTextOfAnotherVersion() throws {
        #expect(try article().contains(ProtocolError.versionMismatch(found: 9).description))
    }
}
