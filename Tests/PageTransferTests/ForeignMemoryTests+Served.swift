import LinuxSystem
import PageProtocol
import Synchronization

@testable import PageServer

extension ForeignMemoryTests {
    /// A source of other processes' memory, with the test at the other end of its lanes.
    final class Served: Sendable {
        let source: PageServer
        let events: EventLog<PageServer.Event>
        let urgentLanes: [SharedSocket]
        var urgent: SharedSocket { urgentLanes[0] }
        let bulk: SharedSocket

        init(
            _ memory: [SourceRegion],
            pageCount: Int,
            hugePageCount: Int? = nil,
            releasesMemory: Bool = false,
            urgentLanes: Int = 1
        ) throws {
            let log = try EventLog<PageServer.Event>()
            events = log
            let table = try Served.table(pageCounts: [pageCount], hugePageCount: hugePageCount)
            source = try PageServer(regions: memory, table: table, releasesMemory: releasesMemory) { log.add($0) }
            let connection = try Connection(urgentLanes: urgentLanes)
            try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
            self.urgentLanes = connection.destination.urgent
            bulk = connection.destination.bulk
            source.freeze()
        }

        static func table(pageCounts: [Int], hugePageCount: Int? = nil) throws -> RegionTable {
            var shapes: [RegionShape] = []
            var address: UInt64 = 0
            for (index, count) in (pageCounts + (hugePageCount.map { [$0] } ?? [])).enumerated() {
                let pageSize = index < pageCounts.count ? 4096 : HugePagePool.pageSize
                shapes.append(
                    RegionShape(
                        name: "region\(index)",
                        guestAddress: address,
                        pageSize: UInt32(pageSize),
                        pageCount: UInt64(count)
                    )
                )
                // Regions of huge pages begin at a multiple of their size.
                address += UInt64((count * pageSize + (2 << 20) - 1) & ~((2 << 20) - 1))
            }
            return try RegionTable(shapes)
        }

        static func bytes(_ frame: LaneFrame) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
            bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { frame.encode(into: base) } }
            return bytes
        }

        private let answers = Mutex<[(region: UInt32, page: UInt64, word: UInt64)]>([])

        /// The first word of the next page that comes on a lane, which must be this one.
        ///
        /// - Parameter lane: nil for the urgent lane.
        func next(_ page: UInt64, region: UInt32 = 0, on lane: SharedSocket? = nil) throws -> UInt64 {
            let lane = lane ?? urgent
            return try answers.withLock { answers in
                if answers.isEmpty {
                    guard let frame = try lane.stream.receiveFrame() else { throw Missing(what: "a frame") }
                    var body = [UInt8](repeating: 0, count: Int(frame.bodyByteCount))
                    _ = try body.withUnsafeMutableBytes { try lane.stream.receive(exactly: $0) }
                    let pageSize = body.count / Int(frame.run.count)
                    for index in 0..<Int(frame.run.count) {
                        let word =
                            body.isEmpty
                            ? 0
                            : body.withUnsafeBytes {
                                $0.loadUnaligned(fromByteOffset: index * pageSize, as: UInt64.self)
                            }
                        answers.append((frame.run.region, frame.run.first + UInt64(index), word))
                    }
                }
                let answer = answers.removeFirst()
                guard answer.page == page, answer.region == region else { throw Missing(what: "page \(page)") }
                return answer.word
            }
        }

        /// Reads pages until all have come.
        func drain(_ socket: SharedSocket) throws {
            try Served.drain(socket, pages: source.progress.pagesTotal)
        }

        /// Reads a number of pages.
        static func drain(_ socket: SharedSocket, pages: Int) throws {
            var left = pages
            let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
            defer { piece.deallocate() }
            while left > 0, let frame = try socket.stream.receiveFrame() {
                left -= Int(frame.run.count)
                var rest = Int(frame.bodyByteCount)
                while rest > 0 {
                    let part = UnsafeMutableRawBufferPointer(rebasing: piece[..<min(rest, piece.count)])
                    _ = try socket.stream.receive(exactly: part)
                    rest -= part.count
                }
            }
        }
    }
}

extension EventLog where Event == PageServer.Event {
    /// The number of times that pages could not be sent.
    var memoryLosses: Int { all.count { if case .memoryLost = $0 { true } else { false } } }
}
