import Foundation
import WorkingSet

/// Sample working sets.
enum Samples {
    /// A memory of 256 pages.
    static func memory(pageSize: UInt32 = 4096) throws -> WorkingSet.Memory {
        try WorkingSet.Memory(pageSize: pageSize, byteCount: UInt64(pageSize) * 256)
    }

    static func set(_ pages: UInt32..., window: UInt32 = 2000) throws -> WorkingSet {
        try WorkingSet(pages: pages, of: memory(), window: window)
    }

    /// The article's example.
    static func example() throws -> WorkingSet { try set(16, 17, 18, 3) }

    static func decode(_ bytes: [UInt8]) throws(WorkingSetError) -> WorkingSet {
        try WorkingSet.decode(bytes.span.bytes)
    }
}

/// A record whose fields a test chooses, with a correct checksum.
struct RawRecord {
    var magic: UInt32 = WorkingSet.Record.magic
    var version: UInt16 = 1
    var reserved: UInt16 = 0
    var pageSize: UInt32 = 4096
    var runCount: UInt32?
    var byteCount: UInt64 = 256 * 4096
    var window: UInt32 = 2000
    var reservedAtTheEnd: UInt32 = 0
    var runs: [(first: UInt32, count: UInt32)] = []

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        func append(_ number: some FixedWidthInteger) {
            withUnsafeBytes(of: number.littleEndian) { bytes += $0 }
        }
        append(magic)
        append(version)
        append(reserved)
        append(pageSize)
        append(runCount ?? UInt32(runs.count))
        append(byteCount)
        append(window)
        append(reservedAtTheEnd)
        for run in runs {
            append(run.first)
            append(run.count)
        }
        return RawRecord.sealed(bytes)
    }

    /// The bytes followed by their checksum, computed bit by bit.
    static func sealed(_ bytes: [UInt8]) -> [UInt8] {
        var value: UInt32 = ~0
        for byte in bytes {
            value ^= UInt32(byte)
            for _ in 0..<8 { value = value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xedb8_8320 }
        }
        return bytes + withUnsafeBytes(of: (~value).littleEndian) { Array($0) }
    }
}

/// A generator of the same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (state ^ state >> 33) &* 0xff51_afd7_ed55_8ccd
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next() >> 40) }
    }
}
