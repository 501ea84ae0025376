import Compression
import Foundation
import Testing

@Suite("Compressed bytes")
struct CompressionTests {
    /// Compresses bytes; nil if they do not fit into `room` bytes.
    private func compressed(_ bytes: [UInt8], by codec: Codec, room: Int? = nil) -> [UInt8]? {
        let compressor = Compressor([codec])
        var output = [UInt8](repeating: 0, count: room ?? bytes.count * 2 + 100)
        let count = bytes.withUnsafeBytes { bytes in
            output.withUnsafeMutableBytes { compressor.compress(bytes, by: codec, into: $0) }
        }
        return count.map { Array(output[..<$0]) }
    }

    private func inflated(_ bytes: [UInt8], by codec: Codec, to count: Int) throws -> [UInt8] {
        let inflater = Inflater(byteCount: count)
        return try bytes.withUnsafeBytes { Array(try inflater.inflate($0, by: codec, to: count)) }
    }

    private static let text = Array(String(repeating: "a page of text, line \n", count: 12_000).utf8.prefix(256 << 10))

    private static func random(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    }

    @Test("inflate to what they were", arguments: Codec.allCases, [1, 4096, 65536, 256 << 10])
    func roundTrip(codec: Codec, count: Int) throws {
        for bytes in [Array(Self.text.prefix(count)), Self.random(count), [UInt8](repeating: 0, count: count)] {
            let small = try #require(compressed(bytes, by: codec))
            #expect(try inflated(small, by: codec, to: count) == bytes)
        }
        let small = try #require(compressed(Self.text, by: codec))
        #expect(small.count < Self.text.count / 4)
    }

    @Test("are refused where they do not fit", arguments: Codec.allCases)
    func incompressible(codec: Codec) {
        #expect(compressed(Self.random(65536), by: codec, room: 57344) == nil)
        #expect(compressed(Self.random(4096), by: codec, room: 3584) == nil)
        #expect(compressed(Self.text, by: codec, room: 1) == nil)
    }

    @Test("of one compressor do not depend on what it compressed before", arguments: Codec.allCases)
    func reuse(codec: Codec) throws {
        let compressor = Compressor(Codec.allCases)
        let inflater = Inflater(byteCount: 256 << 10)
        var output = [UInt8](repeating: 0, count: 512 << 10)
        for round in 0..<50 {
            let count = [4096, 256 << 10, 12288][round % 3]
            let bytes = round % 4 == 3 ? Self.random(count) : Array(Self.text.suffix(count))
            let small = bytes.withUnsafeBytes { bytes in
                output.withUnsafeMutableBytes { compressor.compress(bytes, by: codec, into: $0) }
            }
            let found = try output[..<#require(small)].withUnsafeBytes {
                Array(try inflater.inflate($0, by: codec, to: count))
            }
            #expect(found == bytes)
        }
    }

    @Test("that inflate to more or fewer bytes than expected are refused", arguments: Codec.allCases)
    func bomb(codec: Codec) throws {
        let bomb = try #require(compressed([UInt8](repeating: 0, count: 1 << 20), by: codec))
        #expect(bomb.count < 5000)
        for count in [1, 4096, 1 << 20 - 1, 1 << 20 + 1, 2 << 20] {
            let error = #expect(throws: InflationError.self) { try inflated(bomb, by: codec, to: count) }
            #expect(error.map { !$0.description.contains("\n") } == true)
        }
        #expect(try inflated(bomb, by: codec, to: 1 << 20).allSatisfy { $0 == 0 })
    }

    @Test("that are cut off, or have others after them, are refused", arguments: Codec.allCases)
    func truncated(codec: Codec) throws {
        let small = try #require(compressed(Array(Self.text.prefix(4096)), by: codec))
        for count in 0..<small.count {
            #expect(throws: InflationError.self) { try inflated(Array(small[..<count]), by: codec, to: 4096) }
        }
        #expect(throws: InflationError.self) { try inflated(small + [0], by: codec, to: 4096) }
        #expect(throws: InflationError.self) { try inflated(small + small, by: codec, to: 4096) }
        #expect(throws: InflationError.self) { try inflated(small + small, by: codec, to: 8192) }
    }

    @Test("of another format are refused")
    func otherFormat() throws {
        // The magic numbers of libzstd's former formats, of frames to skip, of gzip and of liblz4's frames.
        let starts: [[UInt8]] = [
            [0x22, 0xb5, 0x2f, 0xfd], [0x27, 0xb5, 0x2f, 0xfd], [0x50, 0x2a, 0x4d, 0x18], [0x1f, 0x8b, 8, 0],
            [4, 0x22, 0x4d, 0x18],
        ]
        for start in starts {
            #expect(throws: InflationError.damaged(.zstd)) {
                try inflated(start + [UInt8](repeating: 0, count: 64), by: .zstd, to: 4096)
            }
        }
        let lz4 = try #require(compressed(Self.text, by: .lz4))
        #expect(throws: InflationError.damaged(.zstd)) { try inflated(lz4, by: .zstd, to: Self.text.count) }
        #expect(throws: InflationError.damaged(.zstd)) { try inflated([], by: .zstd, to: 4096) }
        #expect(throws: InflationError.damaged(.lz4)) { try inflated([], by: .lz4, to: 4096) }
    }

    @Test("that are damaged are refused, or inflate to as many bytes as expected", arguments: Codec.allCases)
    func damaged(codec: Codec) throws {
        let inflater = Inflater(byteCount: 65536)
        let sound = try #require(compressed(Array(Self.text.prefix(65536)), by: codec))
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            var bytes = sound
            for _ in 0...Int.random(in: 0...3, using: &generator) {
                bytes[Int.random(in: bytes.indices, using: &generator)] = UInt8.random(in: .min ... .max)
            }
            let found = bytes.withUnsafeBytes { try? inflater.inflate($0, by: codec, to: 65536).count }
            #expect(found == nil || found == 65536)
        }
        for _ in 0..<20_000 {
            let junk = Self.random(Int.random(in: 0...64, using: &generator))
            _ = junk.withUnsafeBytes { try? inflater.inflate($0, by: codec, to: 65536) }
        }
    }

    @Test("are made by the codecs that a setting names and a destination inflates")
    func settings() {
        let all = Set(Codec.allCases)
        #expect(PushCompression.none.codecs(of: all) == [])
        #expect(PushCompression.lz4.codecs(of: all) == [.lz4])
        #expect(PushCompression.zstd.codecs(of: all) == [.zstd])
        #expect(PushCompression.auto.codecs(of: all) == [.lz4, .zstd])
        #expect(PushCompression.auto.codecs(of: [.zstd]) == [.zstd])
        #expect(PushCompression.zstd.codecs(of: [.lz4]) == [])
    }
}
