import LinuxSystem
import PageProtocol

/// The bulk lane: places what is pushed, and asks there for pages that were told to be needed soon. A page that somebody
/// waits for is asked for on an urgent lane all the same.
struct BulkReceiver: ~Copyable {
    /// Bytes of pages that are asked for and have not come, at most.
    private static let ahead = 2 << 20
    private static let batch = 64

    private let lane: AttachedLane
    private let memory: ArrivingMemory
    private var receiver: LaneReceiver
    private let runs: [PageRun]
    private var isFetching: Bool
    private var next = 0
    private var asked = 0
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: batch * LaneFrame.encodedByteCount,
        alignment: 8
    )

    init(_ lane: AttachedLane, fetching runs: [PageRun], memory: ArrivingMemory) {
        self.lane = lane
        self.memory = memory
        self.runs = runs
        isFetching = !runs.isEmpty
        receiver = LaneReceiver(lane, memory: memory)
    }

    deinit {
        buffer.deallocate()
    }

    /// Receives until the lane ends, or pages can be placed no more.
    mutating func run(_ onEvent: (DestinationAgent.Event) -> Void) {
        do {
            repeat {
                ask()
                if isFetching, next == runs.count, receiver.pagesReceived >= asked {
                    isFetching = false
                    onEvent(.everyRunFetched)
                }
            } while try receiver.receive(onEvent)
        } catch {
            onEvent(.failed(reason: "\(error)"))
        }
    }

    /// Asks for as many pages as may be on their way.
    private mutating func ask() {
        guard next < runs.count, let base = buffer.baseAddress else { return }
        var used = 0
        while next < runs.count, used < buffer.count {
            let run = runs[next]
            let pageSize = memory.ranges[Int(run.region)].pageSize
            guard (asked - receiver.pagesReceived) * pageSize < BulkReceiver.ahead else { break }
            next += 1
            let resident = memory.resident[Int(run.region)]
            let pages = Int(run.first)..<Int(run.first) + Int(run.count)
            guard !pages.allSatisfy({ resident.contains($0) }) else { continue }
            LaneFrame.pageRequest(run).encode(into: base + used)
            used += LaneFrame.encodedByteCount
            asked += pages.count
        }
        guard used > 0 else { return }
        do throws(SystemError) {
            try lane.socket.stream.send(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
        } catch {
            // The receiver of the same socket tells it.
            lane.shutdown()
        }
    }
}
