import Foundation
import Glibc
import LinuxSystem

/// A process that attaches, played by the test: its socket, its memory and its messages.
final class AttachingProcess: Sendable {
    /// An order of the agent to the process.
    struct Order: Equatable {
        var kind: UInt32
        var payload: [UInt8]

        static let device: UInt32 = 2
        static let load = Order(kind: 3, payload: [])
        static let run = Order(kind: 4, payload: [])
        static let whole = Order(kind: 5, payload: [])

        /// The reason of a REFUSED; nil for another order.
        var refusal: String? { kind == 1 ? String(decoding: payload, as: UTF8.self) : nil }
    }

    let socket: StreamSocket
    let regions: [MemoryRegion]

    init(at path: String, pageCounts: [Int] = [4]) throws {
        socket = try StreamSocket(connectingTo: .unix(path: path))
        regions = try pageCounts.enumerated().map { try MemoryRegion(name: "region\($0)", pageCount: $1) }
    }

    /// The hand-off of the regions, with correct fields.
    var handOff: [UInt8] { Self.handOff(regions.map { ($0.range.address, $0.range.byteCount) }) }

    static func handOff(
        magic: UInt32 = 0x4f48_4750,
        version: UInt16 = 1,
        pageSize: UInt32 = 4096,
        _ regions: [(address: UInt64, byteCount: UInt64)]
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        append(magic, to: &bytes)
        append(version, to: &bytes)
        append(UInt16(regions.count), to: &bytes)
        for region in regions {
            append(region.address, to: &bytes)
            append(region.byteCount, to: &bytes)
            append(pageSize, to: &bytes)
            append(UInt32(0), to: &bytes)
        }
        return bytes
    }

    /// A hand-off of version 2, which names each region's memory file and the region's place in that file.
    static func handOff(
        pageSize: UInt32 = 4096,
        inFiles regions: [(address: UInt64, byteCount: UInt64, file: UInt32, offset: UInt64)]
    ) -> [UInt8] {
        var bytes = handOff(version: 2, [])
        bytes[6] = UInt8(regions.count)
        for region in regions {
            append(region.address, to: &bytes)
            append(region.byteCount, to: &bytes)
            append(pageSize, to: &bytes)
            append(region.file, to: &bytes)
            append(region.offset, to: &bytes)
        }
        return bytes
    }

    static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
    }

    /// Registers the regions and hands the userfaultfd over.
    ///
    /// The agent then has the only copy.
    func handOver(_ bytes: [UInt8]? = nil, features: Userfaultfd.Features = []) throws {
        let userfaultfd = try Userfaultfd(features: features)
        for region in regions { try userfaultfd.register(region.range) }
        try socket.send(bytes ?? handOff, with: userfaultfd)
    }

    /// The next order; nil if the agent has hung up.
    func nextOrder() throws -> Order? {
        var header = [UInt32](repeating: 0, count: 2)
        let count = try header.withUnsafeMutableBytes { try socket.receive(exactly: $0) }
        guard count == 8 else { return nil }
        var payload = [UInt8](repeating: 0, count: Int(header[1]))
        _ = try payload.withUnsafeMutableBytes { try socket.receive(exactly: $0) }
        return Order(kind: header[0], payload: payload)
    }

    /// Whether a page of the first region is registered with a userfaultfd, so that another cannot register it.
    func isRegistered(page: Int) -> Bool {
        let range = PageRange(address: regions[0].range.address(ofPage: page), pageSize: 4096, pageCount: 1)
        do {
            try Userfaultfd().register(range)
            return false
        } catch {
            return true
        }
    }

    func answerDone() throws {
        try answer(0x101, [])
    }

    func answerFailed(_ reason: String) throws {
        try answer(0x102, Array(reason.utf8))
    }

    func answer(_ kind: UInt32, _ payload: [UInt8], length: UInt32? = nil) throws {
        var bytes: [UInt8] = []
        Self.append(kind, to: &bytes)
        Self.append(length ?? UInt32(payload.count), to: &bytes)
        try socket.send(bytes + payload)
    }
}
