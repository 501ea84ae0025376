public import LinuxSystem
import PageProtocol

/// What this machine's kernel and network cost before Pageferry adds anything: the floor of every fault.
public enum Floor {
    /// Samples of each figure, if they fit into ``budget``.
    private static let samples = 256
    /// Nanoseconds that a measurement may take.
    private static let budget: UInt64 = 100_000_000

    /// Measures a fault that a thread of this process answers from memory at hand.
    ///
    /// - Returns: the median in microseconds.
    public static func localFault() throws(SystemError) -> Double {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "floor", pageCount: samples)
        let page = try MemoryRegion(name: "floor-page", pageCount: 1)
        page.base.storeBytes(of: 1, as: UInt8.self)
        try userfaultfd.register(region.range)
        let stop = try EventDescriptor()
        let shared = Shared(userfaultfd: userfaultfd, stop: stop)
        let handler = try JoinedThread(name: "floor-fault") {
            var events = Userfaultfd.EventBuffer(capacity: 1)
            // A fault that cannot be answered would block the measurement below, so errors end it there too.
            while (try? shared.userfaultfd.wait(or: shared.stop)) == .events {
                guard (try? shared.userfaultfd.read(into: &events)) != nil else { break }
                guard events.count > 0, case .fault(let address, _) = events[0] else { continue }
                _ = shared.userfaultfd.copy(to: address & ~4095, from: page.base, byteCount: 4096)
            }
            try? shared.userfaultfd.unregister(region.range)
        }
        let median = medianMicroseconds { region.page($0).load(as: UInt8.self) == 1 }
        shared.stop.raise()
        handler.join()
        return median
    }

    private final class Shared: Sendable {
        let userfaultfd: Userfaultfd
        let stop: EventDescriptor
        init(userfaultfd: consuming Userfaultfd, stop: consuming EventDescriptor) {
            self.userfaultfd = userfaultfd
            self.stop = stop
        }
    }

    /// Measures 4096 bytes asked for and received on an urgent lane that nothing else uses yet.
    ///
    /// - Parameter limit: nanoseconds within which all of it is done, however the peer spreads its answers.
    /// - Returns: the median in microseconds.
    /// - Throws: what broke the lane, or that the time is over.
    public static func roundTrip(
        on urgent: borrowing StreamSocket,
        within limit: UInt64 = 5_000_000_000
    ) throws -> Double {
        let frame = UnsafeMutableRawBufferPointer.allocate(byteCount: LaneFrame.encodedByteCount, alignment: 8)
        let reply = UnsafeMutableRawBufferPointer.allocate(
            byteCount: LaneFrame.encodedByteCount + Int(Wire.probeReplyBytes),
            alignment: 8
        )
        defer {
            frame.deallocate()
            reply.deallocate()
        }
        guard let frameBase = frame.baseAddress, let replyBase = reply.baseAddress else { return 0 }
        LaneFrame.probe.encode(into: frameBase)
        var durations: [UInt64] = []
        let begin = MonotonicClock.now()
        while durations.count < samples, MonotonicClock.now() - begin < budget {
            let before = MonotonicClock.now()
            try urgent.send(UnsafeRawBufferPointer(frame))
            let received = try urgent.receive(exactly: reply, before: begin + limit)
            guard received == reply.count else { throw LaneClosed(peer: urgent.peer) }
            durations.append(MonotonicClock.now() - before)
            let answer = try LaneFrame.decode(replyBase)
            guard answer.kind == .probeReply else { throw UnexpectedFrame(frame: answer) }
        }
        return median(durations)
    }

    private static func medianMicroseconds(_ access: (Int) -> Bool) -> Double {
        var durations: [UInt64] = []
        let begin = MonotonicClock.now()
        for page in 0..<samples {
            // On a busy host each fault takes long, and a source waits for this.
            guard MonotonicClock.now() - begin < budget else { break }
            let before = MonotonicClock.now()
            let isRight = access(page)
            durations.append(MonotonicClock.now() - before)
            precondition(isRight, "a page that was placed holds something else")
        }
        return median(durations)
    }

    private static func median(_ durations: [UInt64]) -> Double {
        guard !durations.isEmpty else { return 0 }
        return Double(durations.sorted()[durations.count / 2]) / 1000
    }
}
