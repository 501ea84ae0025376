import LinuxSystem
import Outside
import QMP
import SourceAgent
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
        answer["ram"] = describe(snapshot.progress, seconds: snapshot.totalMicroseconds / 1e6)
        return .object(answer)
    }

    private func describe(_ session: DestinationSession) async -> JSONValue {
        let snapshot = await session.snapshot()
        var answer = describe(snapshot.state, snapshot.totalMicroseconds, failure: snapshot.failureReason)
        // Only in these states a source can come: nobody is to dial a migration that goes on or has ended.
        let listening = await successor?.snapshot() ?? snapshot
        if listening.isListening, listening.state == .setup || listening.state == .postcopyPaused,
            case .tcp(let host, let port) = listening.address
        {
            answer["socket-address"] = [["type": "inet", "host": .string(host), "port": .string("\(port)")]]
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

    /// Nothing is sent before the switchover: all of it is postcopy.
    private func describe(_ progress: SourceAgent.Progress, seconds: Double) -> JSONValue {
        let pageSize = regions.map(\.pageSize).max() ?? 0
        let bytesPerSecond = seconds > 0 ? Double(progress.bytesSent) / seconds : 0
        return [
            "transferred": JSONValue(progress.bytesSent),
            "remaining": JSONValue((progress.pagesTotal - progress.pagesSent) * pageSize),
            "total": JSONValue(progress.pagesTotal * pageSize),
            "duplicate": JSONValue(progress.zeroPages),
            "normal": JSONValue(progress.bytesSent / max(1, pageSize)),
            "normal-bytes": JSONValue(progress.bytesSent),
            "precopy-bytes": 0,
            "postcopy-bytes": JSONValue(progress.bytesSent),
            "postcopy-requests": JSONValue(progress.requests),
            "page-size": JSONValue(pageSize),
            "mbps": .double(bytesPerSecond * 8 / 1e6),
            "pages-per-second": JSONValue(whole(bytesPerSecond) / max(1, pageSize)),
            "dirty-sync-count": 1,
            "dirty-pages-rate": 0,
            "dirty-sync-missed-zero-copy": 0,
            "downtime-bytes": 0,
            "multifd-bytes": 0,
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
