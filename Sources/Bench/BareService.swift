import LinuxSystem

/// The least that answers page requests and sends memory: no protocol, no record of what was sent.
struct BareService: ~Copyable {
    private let lanes: BareLanes
    private let region: MemoryRegion
    private let chunk: Int
    private var urgent: JoinedThread?
    private var bulk: JoinedThread?

    init(_ region: MemoryRegion, chunk: Int, lanes: BareLanes) throws(SystemError) {
        self.lanes = lanes
        self.region = region
        self.chunk = chunk
        self.urgent = try JoinedThread(name: "bare-serve") {
            var number: UInt64 = 0
            withUnsafeMutableBytes(of: &number) { bytes in
                // A near end that hangs up ends this.
                while (try? lanes.urgent.receive(exactly: bytes)) == 8 {
                    let page = Int(bytes.load(as: UInt64.self))
                    guard page < region.pageCount else { return }
                    let body = UnsafeRawBufferPointer(start: region.page(page), count: region.pageSize)
                    guard (try? lanes.urgent.send(body)) != nil else { return }
                }
            }
        }
    }

    mutating func push() throws(SystemError) {
        bulk = try JoinedThread(name: "bare-push") { [lanes, region, chunk] in
            var page = 0
            while page < region.pageCount {
                let count = min(chunk, region.pageCount - page)
                let body = UnsafeRawBufferPointer(start: region.page(page), count: count * region.pageSize)
                guard (try? lanes.bulk.send(body)) != nil else { return }
                page += count
            }
        }
    }

    deinit {
        // The threads end with their lanes, and are joined as they are dropped.
        lanes.shutdown()
    }
}

/// Two connections that several threads use.
final class BareLanes: Sendable {
    let urgent: StreamSocket
    let bulk: StreamSocket

    init(_ lanes: consuming LanePair) {
        urgent = lanes.urgent
        bulk = lanes.bulk
    }

    func shutdown() {
        urgent.shutdown()
        bulk.shutdown()
    }
}
