import HTTPTypes
import LinuxSystem
import NIOCore
import NIOHTTPTypes
import Telemetry

/// The live pages that are open: each gets the state first, and then what changes.
///
/// One look at the process serves all pages, and there is none while no page is open. A page that does not read misses
/// ticks, and gets the whole state again when it reads.
actor EventStreams {
    private struct Watcher {
        let channel: any Channel
        /// Whether the page must get the whole state next.
        var isBehind: Bool
    }

    private let sampler: Sampler
    private let limits: WebLimits
    private let connections: WebConnections
    private let loop: any EventLoop
    private var watchers: [ObjectIdentifier: Watcher] = [:]
    /// The pages whose answer has begun, watching or not.
    private var reserved = 0
    /// The state that the pages show, except those that are behind.
    private var shown: LiveState? { didSet { shownText = nil } }
    /// ``shown`` as text, once a page needs all of it.
    private var shownText: [UInt8]?
    private var number: UInt64 = 0
    private var ticking: Task<Void, Never>?
    private var lastSend = MonotonicClock.now()
    private var hasEnded = false

    init(_ sampler: Sampler, _ limits: WebLimits, _ connections: WebConnections, on loop: any EventLoop) {
        self.sampler = sampler
        self.limits = limits
        self.connections = connections
        self.loop = loop
    }

    /// Takes one of the places for pages; false if all are taken.
    func reserve() -> Bool {
        guard !hasEnded, reserved < limits.eventStreams else { return false }
        reserved += 1
        connections.addEventStreams(1)
        return true
    }

    /// Gives a place back that was taken.
    func giveBack() {
        reserved -= 1
        connections.addEventStreams(-1)
    }

    /// Sends the state and all changes over a connection, until it is closed.
    func serve(_ channel: any Channel) async {
        defer { giveBack() }
        if shown == nil {
            let state = await sampler.liveState()
            if shown == nil { shown = state }
        }
        guard !hasEnded, let text = wholeShown() else { return }
        let key = ObjectIdentifier(channel)
        send(event("state", text), to: [channel])
        watchers[key] = Watcher(channel: channel, isBehind: false)
        if ticking == nil { ticking = Task { await tick() } }
        // The connection may close by an error, and is gone then too.
        try? await channel.closeFuture.get()
        watchers[key] = nil
        if watchers.isEmpty {
            ticking?.cancel()
            ticking = nil
            shown = nil
        }
    }

    /// The text of the state that the pages show, which is made once for all pages.
    private func wholeShown() -> [UInt8]? {
        guard let shown else { return nil }
        let text = shownText ?? StateJSON.whole(shown)
        shownText = text
        return text
    }

    /// Ends all streams; their connections are closed by the caller.
    func end() {
        hasEnded = true
        ticking?.cancel()
        ticking = nil
    }

    private func tick() async {
        while !Task.isCancelled {
            // Ends early only if the task is cancelled.
            try? await Task.sleep(for: limits.tick)
            guard !Task.isCancelled else { return }
            let state = await sampler.liveState()
            guard !Task.isCancelled, let before = shown else { return }
            shown = state
            tell(state, since: before)
        }
    }

    private func tell(_ state: LiveState, since before: LiveState) {
        for (key, watcher) in watchers where !watcher.channel.isWritable { watchers[key]?.isBehind = true }
        let writable = watchers.filter { $1.channel.isWritable }
        let late = writable.filter { $1.isBehind }
        if !late.isEmpty, let text = wholeShown() {
            send(event("state", text), to: late.map(\.value.channel))
            for key in late.keys { watchers[key]?.isBehind = false }
        }
        let others = writable.filter { !$1.isBehind }.map(\.value.channel)
        if let tick = StateJSON.tick(from: before, to: state) {
            send(event("tick", tick), to: others)
            lastSend = MonotonicClock.now()
        } else if MonotonicClock.time(since: lastSend) >= limits.keepAlive {
            send(event("tick", StateJSON.time(of: state)), to: others)
            lastSend = MonotonicClock.now()
        }
    }

    private func event(_ name: String, _ json: [UInt8]) -> ByteBuffer {
        number += 1
        var buffer = ByteBuffer(string: "id: \(number)\nevent: \(name)\ndata: ")
        buffer.writeBytes(json)
        buffer.writeString("\n\n")
        return buffer
    }

    /// Writes the same bytes to several connections, in one turn of their loop.
    private func send(_ buffer: ByteBuffer, to channels: [any Channel]) {
        guard !channels.isEmpty else { return }
        loop.execute {
            for channel in channels { channel.writeAndFlush(HTTPResponsePart.body(buffer), promise: nil) }
        }
    }
}
