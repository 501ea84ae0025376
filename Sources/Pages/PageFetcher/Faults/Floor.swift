package import LinuxSystem
import PageProtocol

/// Measures what this host's kernel and network cost without Pageferry: the lower bound of every fault's time.
package enum Floor {
    /// The number of samples of each figure, if they fit into ``budget``.
    private static let samples = 256
    /// The time limit of one measurement, in nanoseconds.
    private static let budget: UInt64 = 100_000_000

    /// Measures a fault that another thread of this process answers from local memory.
    ///
    /// - Returns: the median in microseconds.
    /// - Throws: the error of a system call that prepares the measurement.
    package static func localFault() throws(SystemError) -> Double {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "floor", pageCount: samples)
        let page = try MemoryRegion(name: "floor-page", pageCount: 1)
        page.base.storeBytes(of: 1, as: UInt8.self)
        try userfaultfd.register(region.range)
        let stop = try EventDescriptor()
        let shared = Shared(userfaultfd: userfaultfd, stop: stop)
        let handler = try JoinedThread(name: "floor-fault") {
            var events = Userfaultfd.EventBuffer(capacity: 1)
            // A fault without an answer would block the measurement below. So on an error this loop ends and the range
            // is unregistered, which lets the measurement finish.
            while (try? shared.userfaultfd.wait(or: shared.stop)) == .events {
                // An error ends the loop, as above.
                guard (try? shared.userfaultfd.read(into: &events)) != nil else { break }
                guard events.count > 0, case .fault(let address, _, _) = events[0] else { continue }
                _ = shared.userfaultfd.copy(to: address & ~4095, from: page.base, byteCount: 4096)
            }
            // If this fails, closing the userfaultfd unregisters the range too.
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

    /// Measures a request and an answer of 4096 bytes on an urgent lane that nothing else uses yet.
    ///
    /// - Parameters:
    ///   - urgent: the lane.
    ///   - limit: the time limit of the whole measurement, even if the peer sends its answers in pieces.
    /// - Returns: the median in microseconds.
    /// - Throws: the reason why the lane broke, or an error if the time limit was exceeded.
    package static func roundTrip(
        on urgent: borrowing StreamSocket,
        within limit: Duration = .seconds(5)
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
        let deadline = begin + UInt64(clamping: Int64((limit / .nanoseconds(1)).rounded()))
        while durations.count < samples, MonotonicClock.now() - begin < budget {
            let before = MonotonicClock.now()
            try urgent.send(UnsafeRawBufferPointer(frame))
            let received = try urgent.receive(exactly: reply, before: deadline)
            guard received == reply.count else { throw LaneClosed(peer: urgent.peer) }
            durations.append(MonotonicClock.now() - before)
            let answer = try LaneFrame.decode(replyBase)
            guard answer.kind == .probeReply else { throw UnexpectedFrame(frame: answer, from: .source) }
        }
        return median(durations)
    }

    private static func medianMicroseconds(_ access: (Int) -> Bool) -> Double {
        var durations: [UInt64] = []
        let begin = MonotonicClock.now()
        for page in 0..<samples {
            // On a busy host each fault takes long, and a source waits for this measurement.
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
