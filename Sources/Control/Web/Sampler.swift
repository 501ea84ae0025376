import Exposition
import Foundation
import LinuxSystem
import Telemetry

/// Looks at the process for all clients, at most once in a short time.
actor Sampler {
    /// The age up to which a look serves further clients, in nanoseconds.
    private static let freshTime: UInt64 = 100_000_000

    private struct Look<Value: Sendable>: Sendable {
        let value: Task<Value, Never>
        let time = MonotonicClock.now()
        var isDone = false

        /// A look that takes long serves every client that comes before its end, so that a slow process is not looked at
        /// once for each client.
        var isFresh: Bool { !isDone || MonotonicClock.now() - time < Sampler.freshTime }
    }

    private let observed: any Observed
    private let settings: WebServer.Settings
    private let connections: WebConnections
    private let start = Date.now.timeIntervalSince1970
    private var state: Look<LiveState>?
    private var stateText: Look<[UInt8]>?
    private var texts: [ExpositionFormat: Look<[UInt8]>] = [:]

    init(_ observed: any Observed, settings: WebServer.Settings, connections: WebConnections) {
        self.observed = observed
        self.settings = settings
        self.connections = connections
    }

    /// The state now.
    func liveState() async -> LiveState {
        if let state, state.isFresh { return await state.value.value }
        let look = Look(
            value: Task { [observed, settings] in
                var state = await observed.liveState()
                state.release = settings.release
                state.name = settings.host
                state.control = settings.token != nil
                state.unixMilliseconds = UInt64(max(0, Date.now.timeIntervalSince1970 * 1000))
                let log = settings.log()
                (state.events, state.eventCount) = (log.events, log.count)
                return state
            }
        )
        state = look
        let value = await look.value.value
        // No other look replaces one that is not done.
        state?.isDone = true
        return value
    }

    /// The state now, as JSON text.
    func wholeState() async -> [UInt8] {
        if let stateText, stateText.isFresh { return await stateText.value.value }
        let look = Look(value: Task.detached { StateJSON.whole(await self.liveState()) })
        stateText = look
        let value = await look.value.value
        stateText?.isDone = true
        return value
    }

    /// The metrics now, as text.
    func metrics(as format: ExpositionFormat) async -> [UInt8] {
        if let text = texts[format], text.isFresh { return await text.value.value }
        let look = Look(
            value: Task { [observed, settings, connections, start] in
                var set = await observed.metrics()
                set.add(.build, 1, settings.release, "\(settings.pageProtocol)", observed.kind.rawValue)
                set.add(.startTime, start)
                set.add(.droppedLogLines, Double(settings.log().dropped))
                set.add(.httpConnections, Double(connections.count))
                set.add(.httpConnectionLimit, Double(settings.limits.connections))
                set.add(.eventStreams, Double(connections.eventStreams))
                set.add(.ready, await observed.unreadiness() == nil ? 1 : 0)
                return set.text(as: format)
            }
        )
        texts[format] = look
        let value = await look.value.value
        texts[format]?.isDone = true
        return value
    }
}
