import Attachments
import Foundation
package import LinuxSystem
import Logging
import Outside
package import PageFetcher
import PageProtocol

/// What happens to a guest that can no longer be served.
package enum LostPolicy: String, Codable, CaseIterable, Sendable {
    /// The guest's process is killed.
    case kill
    /// The guest's faults wait until its pages can be served again.
    case hold
}

/// How guests are served.
package struct HandlerSettings: Codable, Sendable {
    /// The address of the snapshot server: `HOST:PORT`, or `unix:` and an absolute path.
    package var source: String

    /// The parsed ``source``.
    var address: SocketAddress {
        get throws(SocketAddressError) { try SocketAddress(source.hasPrefix("unix:/") ? source : "tcp:\(source)") }
    }

    /// Seconds without a server, or without its answer, after which a guest that waits for a page is lost.
    package var giveUpSeconds: Double
    /// What happens to a lost guest.
    package var onLost: LostPolicy
    /// Seconds of the server's silence after which the link is given up.
    package var peerTimeoutSeconds: Double
    /// Threads that serve the faults of one guest, each on an urgent lane of its own.
    package var faultThreads: Int
    /// Nanoseconds that a thread which serves faults polls at most before it sleeps; 0 to never poll.
    ///
    /// Nil in the state that a handler without this setting has left; the usual time then counts.
    package var pollNanoseconds: UInt64?
    var polling: Duration {
        pollNanoseconds.map { .nanoseconds(Int64(clamping: $0)) } ?? PollBudget.usualLimit
    }

    /// The file that a guest's working set is recorded to; nil if it is not recorded.
    package var record: String?
    /// Milliseconds after the guest has attached in which touches are recorded.
    package var recordMilliseconds: UInt32
    /// The file of a recorded working set to fetch when a guest attaches; nil for none.
    package var prefetch: String?
    /// How fast the pages are fetched that a guest does not touch; nil to fetch none of them.
    package var fill: FillRate?
    /// Where the names of guests come from; nil for guests without names.
    package var names: GuestNames?

    /// Makes settings; bounds are checked where a worker reads its task.
    package init(
        source: String,
        giveUpSeconds: Double,
        onLost: LostPolicy,
        peerTimeoutSeconds: Double,
        faultThreads: Int,
        pollNanoseconds: UInt64,
        record: String?,
        recordMilliseconds: UInt32,
        prefetch: String?,
        fill: FillRate?,
        names: GuestNames?
    ) {
        self.source = source
        self.giveUpSeconds = giveUpSeconds
        self.onLost = onLost
        self.peerTimeoutSeconds = peerTimeoutSeconds
        self.faultThreads = faultThreads
        self.pollNanoseconds = pollNanoseconds
        self.record = record
        self.recordMilliseconds = recordMilliseconds
        self.prefetch = prefetch
        self.fill = fill
        self.names = names
    }
}

/// A worker's task: the guest to serve, and how.
///
/// A task holds the addresses of the guest's memory, and must not become known to other users of the host.
package struct GuestTask: Codable, Sendable {
    /// The largest accepted task, in bytes.
    static let maxByteCount = 1 << 20

    struct Region: Codable, Sendable {
        let address: UInt64
        let pageSize: Int
        let pageCount: Int
        let offset: UInt64

        /// Whether the region is within the bounds of those that a guest can hand over.
        fileprivate var isSound: Bool {
            let size = Untrusted<UInt64>(converting: pageSize) * Untrusted(converting: pageCount)
            return (pageSize == 4096 || pageSize == HugePagePool.pageSize) && pageCount > 0
                && (Untrusted(address) + size).within(0...(1 << 56)) != nil
                && (Untrusted(offset) + size).within(0...Wire.maxMemoryBytes) != nil
        }

        var range: PageRange { PageRange(address: address, pageSize: pageSize, pageCount: pageCount) }
        var slice: SnapshotSlice {
            SnapshotSlice(offset: offset, pageSize: UInt32(pageSize), pageCount: UInt64(pageCount))
        }
    }

    let process: Int32
    /// The address at which the guest attached.
    let socket: String
    /// The name by which operators know the guest, also after an adoption; nil if it has none.
    let label: String?
    let regions: [Region]
    /// Whether the process closes its end of the connection only when it exits.
    private(set) var keepsSocketOpen: Bool
    /// Whether the connection still exists, on which the process has handed over its memory.
    private(set) var hasConnection = true
    /// Whether the process has ended, so that it was a relay for the process that uses the memory; nil if it has not.
    ///
    /// Optional, since tasks that an earlier handler has written lack it.
    private(set) var hasEnded: Bool?
    private(set) var settings: HandlerSettings

    /// The guest's name, process and socket, for messages.
    package var name: String {
        let place = process > 0 ? "process \(process) at \(socket)" : "a process of another PID namespace at \(socket)"
        return label.map { "\($0) (\(place))" } ?? place
    }

    /// A log whose lines are about the guest.
    func logger(of logger: Logger) -> Logger {
        var logger = logger
        logger[metadataKey: "guest"] = "\(name)"
        logger[metadataKey: "process"] = "\(process)"
        return logger
    }

    init(_ guest: borrowing FirecrackerGuest, at socket: String, _ settings: HandlerSettings) {
        self.socket = socket
        process = guest.process.id
        label = settings.names?.name(of: guest.handOff, at: socket)
        regions = GuestTask.regions(guest.handOff.regions)
        keepsSocketOpen = guest.handOff.keepsSocketOpen
        self.settings = settings
    }

    /// The task of the same guest under another handler, which has not inherited the connection.
    ///
    /// - Parameters:
    ///   - settings: how that handler serves guests.
    ///   - hasEnded: whether the process that has handed over the memory has ended.
    ///
    /// What is recorded, and for how long, stays as it was: the guest's state has room for exactly that.
    func adopted(by settings: HandlerSettings, hasEnded: Bool) -> GuestTask {
        var task = self
        task.settings = settings
        task.settings.record = self.settings.record
        task.settings.recordMilliseconds = self.settings.recordMilliseconds
        task.keepsSocketOpen = false
        task.hasConnection = false
        task.hasEnded = hasEnded ? true : nil
        return task
    }

    /// The regions of a hand-off; those that follow each other in memory and in the snapshot are one.
    private static func regions(_ handed: [FirecrackerHandOff.Region]) -> [Region] {
        var regions: [Region] = []
        for next in handed {
            if let last = regions.last, last.pageSize == next.range.pageSize,
                last.range.address + last.range.byteCount == next.range.address,
                last.offset + last.range.byteCount == next.offset
            {
                regions[regions.count - 1] = Region(
                    address: last.address,
                    pageSize: last.pageSize,
                    pageCount: last.pageCount + next.range.pageCount,
                    offset: last.offset
                )
            } else {
                regions.append(
                    Region(
                        address: next.range.address,
                        pageSize: next.range.pageSize,
                        pageCount: next.range.pageCount,
                        offset: next.offset
                    )
                )
            }
        }
        return regions
    }

    /// Reads the task that this process inherited from `GuestSession`.
    ///
    /// - Throws: if no descriptor was inherited, or if the task is too long, malformed or out of bounds.
    package init(_ inherited: inout Inherited) throws {
        let file = try inherited.memoryFile()
        guard file.byteCount <= GuestTask.maxByteCount else {
            throw ServiceFailure(
                description: "the worker's task has \(file.byteCount) bytes, more than \(GuestTask.maxByteCount)"
            )
        }
        try self.init(reading: file.contents())
    }

    /// Reads a task of no guest, so that the copies of this process need not build up the decoder's types again.
    package static func rehearse() throws {
        let task = """
            {"process": 1, "socket": "", "keepsSocketOpen": true, "hasConnection": true,
             "regions": [{"address": 4096, "pageSize": 4096, "pageCount": 1, "offset": 0}],
             "settings": {"source": "", "giveUpSeconds": 1, "onLost": "hold", "peerTimeoutSeconds": 1,
                          "faultThreads": 1, "recordMilliseconds": 1}}
            """
        _ = try GuestTask(reading: Array(task.utf8))
    }

    init(reading bytes: [UInt8]) throws {
        self = try JSONDecoder().decode(Self.self, from: Data(bytes))
        try requireSound()
    }

    /// Checks what came from a file.
    func requireSound() throws(ServiceFailure) {
        let isSound =
            !regions.isEmpty && regions.allSatisfy(\.isSound)
            && (1...Wire.maxUrgentLanes).contains(settings.faultThreads)
            && PollBudget.limits.contains(settings.polling)
            && GuestTask.times.contains(settings.giveUpSeconds) && GuestTask.times.contains(settings.peerTimeoutSeconds)
        guard isSound else { throw ServiceFailure(description: "the worker's task is out of bounds") }
    }

    /// The range of the command line's durations, in seconds.
    private static let times = 0...1e9

    /// The offset of a page in the snapshot's memory file, in bytes.
    func offset(ofPage page: Int, region: Int) -> UInt64 {
        regions[region].offset + UInt64(page) * UInt64(regions[region].pageSize)
    }
}
