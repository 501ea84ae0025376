import Guest
import Identity
import LinuxSystem
import Outside
import PageFetcher
import PageServer
import QMP
import Switchover

/// `query-migrate`, in QEMU's fields and units.
extension Agent {
    func queryMigrate() async -> JSONValue {
        if let outgoing { return await describe(outgoing) }
        if let incoming { return await describe(incoming) }
        return [:]
    }

    private func describe(_ session: SourceSession) async -> JSONValue {
        let snapshot = await session.snapshot()
        var answer = describe(snapshot.state, snapshot.totalMicroseconds, failure: snapshot.failureReason)
        answer["downtime"] = snapshot.downtimeMicroseconds.map { JSONValue(milliseconds($0)) }
        answer["setup-time"] = snapshot.setupMicroseconds.map { JSONValue(milliseconds($0)) }
        answer["ram"] = describe(snapshot)
        return .object(answer)
    }

    private func describe(_ session: DestinationSession) async -> JSONValue {
        let snapshot = await session.snapshot()
        var answer = describe(snapshot.state, snapshot.totalMicroseconds, failure: snapshot.failureReason)
        // Only in these states may a source connect: the address must not be dialed during a migration or after its
        // end.
        let listening = await successor?.snapshot() ?? snapshot
        if listening.isListening, listening.state == .setup || listening.state == .postcopyPaused,
            case .tcp(let host, let port) = listening.address
        {
            answer["socket-address"] = [["type": "inet", "host": .string(host), "port": .string("\(port)")]]
        }
        if snapshot.progress.waiting > 0, let since = snapshot.progress.waitingSince {
            answer["pageferry-waiting-faults"] = JSONValue(snapshot.progress.waiting)
            answer["pageferry-oldest-fault"] = JSONValue(
                milliseconds(Timeline<DestinationSession.Moment>.microseconds(from: since, to: MonotonicClock.now()))
            )
        }
        if snapshot.progress.pagesTotal > 0 {
            answer["ram"] = describe(snapshot.progress, pageSize: snapshot.pageSize)
        }
        if let latency = await session.latency() { answer.merge(describe(latency)) { one, _ in one } }
        return .object(answer)
    }

    private func describe(
        _ state: MigrationState,
        _ totalMicroseconds: Double,
        failure: String?
    ) -> [String: JSONValue] {
        var answer: [String: JSONValue] = [
            "status": .string(state.rawValue), "total-time": JSONValue(milliseconds(totalMicroseconds)),
        ]
        answer["error-desc"] = failure.map { .string($0) }
        return answer
    }

    /// The source's `ram`: all bytes are postcopy's, since no page is sent before the switchover.
    ///
    /// Two of QEMU's fields are unknown here and left out: the rate at which the workload changes its memory, and the
    /// bytes sent while the workload was stopped.
    private func describe(_ snapshot: SourceSession.Status) -> JSONValue {
        let (progress, seconds) = (snapshot.progress, snapshot.sendingMicroseconds / 1e6)
        let pageSize = snapshot.pageSize
        let bytesPerSecond = seconds > 0 ? Double(progress.bytesSent) / seconds : 0
        return [
            "transferred": JSONValue(progress.bytesSent),
            "remaining": JSONValue(progress.bytesLeft),
            "total": JSONValue(progress.bytesTotal),
            "duplicate": JSONValue(progress.zeroPages),
            "normal": JSONValue(progress.bytesSent / max(1, pageSize)),
            "normal-bytes": JSONValue(progress.bytesSent),
            "precopy-bytes": 0,
            "postcopy-bytes": JSONValue(progress.bytesSent),
            "postcopy-requests": JSONValue(progress.requests),
            "page-size": JSONValue(pageSize),
            "mbps": .double(bytesPerSecond * 8 / 1e6),
            "pages-per-second": JSONValue(whole(bytesPerSecond) / max(1, pageSize)),
            "dirty-sync-count": snapshot.setupMicroseconds == nil ? 0 : 1,
            "dirty-sync-missed-zero-copy": 0,
            "multifd-bytes": 0,
        ]
    }

    /// The destination's `ram`: what has arrived.
    ///
    /// Only the source can report the number of requests and the rate of sending.
    private func describe(_ progress: PageFetcher.Progress, pageSize: Int) -> JSONValue {
        // As at the source, a page of zeros counts as a duplicate, whether it was requested or pushed.
        let arrived = progress.demand + progress.prefetched + progress.pushed
        let normal = max(0, arrived - progress.requestedZero)
        // Pages of different sizes are counted with their mean size.
        let bytes = progress.pagesResident == 0 ? 0 : progress.bytesResident / progress.pagesResident * normal
        return [
            "transferred": JSONValue(bytes),
            "remaining": JSONValue(progress.bytesLeft),
            "total": JSONValue(progress.bytesTotal),
            "duplicate": JSONValue(progress.zero + progress.requestedZero),
            "normal": JSONValue(normal),
            "normal-bytes": JSONValue(bytes),
            "precopy-bytes": 0,
            "postcopy-bytes": JSONValue(bytes),
            "page-size": JSONValue(pageSize),
        ]
    }

    private func describe(_ latency: DestinationSession.Latency) -> [String: JSONValue] {
        func mean(_ sum: DestinationSession.Sum) -> JSONValue { JSONValue(sum.nanoseconds / max(1, sum.count)) }
        var answer: [String: JSONValue] = [
            "postcopy-latency": mean(latency.service),
            "postcopy-latency-dist": .array(latency.distribution.map { JSONValue($0) }),
            "postcopy-vcpu-latency": .array(latency.threads.map(mean)),
            "postcopy-non-vcpu-latency": mean(latency.others),
            "postcopy-vcpu-blocktime": .array(latency.threads.map { JSONValue($0.nanoseconds / 1_000_000) }),
        ]
        answer["postcopy-blocktime"] = latency.blocked.map { JSONValue($0 / 1_000_000) }
        return answer
    }

    private func milliseconds(_ microseconds: Double) -> Int { whole(microseconds / 1000) }

    private func whole(_ number: Double) -> Int { Untrusted(truncating: number).clamped(to: 0...Int.max) }
}
