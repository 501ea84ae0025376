import Attachments
import Foundation
public import LinuxSystem
import Outside
import PageProtocol

/// What is to be done when a guest cannot be served any more.
public enum LostPolicy: String, Codable, CaseIterable, Sendable {
    /// Its process is killed.
    case kill
    /// Its process is stopped, and goes on when its pages can be had again.
    case hold
}

/// How guests are served.
public struct HandlerSettings: Codable, Sendable {
    /// Where the snapshot's server listens: `HOST:PORT`, or `unix:` and an absolute path.
    public var source: String

    /// The same as an address.
    var address: SocketAddress {
        get throws(SocketAddressError) { try SocketAddress(source.hasPrefix("unix:/") ? source : "tcp:\(source)") }
    }

    /// Seconds without a server after which a guest that needs a page is lost.
    public var giveUpSeconds: Double
    /// What is done to a guest that is lost.
    public var onLost: LostPolicy
    /// The longest silence of the server, in seconds.
    public var peerTimeoutSeconds: Double
    /// Threads that serve the faults of a guest.
    public var faultThreads: Int
    /// Where the pages that a guest touches are recorded; nil for nowhere.
    public var record: String?
    /// For how long they are recorded after it has attached, in milliseconds.
    public var recordMilliseconds: UInt32
    /// The record of the pages that are fetched when a guest attaches; nil for none.
    public var prefetch: String?

    /// Settings.
    public init(
        source: String,
        giveUpSeconds: Double,
        onLost: LostPolicy,
        peerTimeoutSeconds: Double,
        faultThreads: Int,
        record: String?,
        recordMilliseconds: UInt32,
        prefetch: String?
    ) {
        self.source = source
        self.giveUpSeconds = giveUpSeconds
        self.onLost = onLost
        self.peerTimeoutSeconds = peerTimeoutSeconds
        self.faultThreads = faultThreads
        self.record = record
        self.recordMilliseconds = recordMilliseconds
        self.prefetch = prefetch
    }
}

/// What a worker is told of the guest that it is to serve: among others where its memory is, which is nobody else's
/// business.
public struct GuestTask: Codable, Sendable {
    /// Bytes of the longest task that is read.
    static let maxByteCount = 1 << 20

    struct Region: Codable, Sendable {
        let address: UInt64
        let pageSize: Int
        let pageCount: Int
        let offset: UInt64

        /// Whether it is one that a guest can hand over.
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
    /// Where it came.
    let socket: String
    let regions: [Region]
    let keepsSocketOpen: Bool
    let settings: HandlerSettings

    /// How it is called in messages.
    public var name: String { "process \(process) at \(socket)" }

    init(_ guest: borrowing FirecrackerGuest, at socket: String, _ settings: HandlerSettings) {
        self.socket = socket
        process = guest.process.id
        regions = guest.handOff.regions.map {
            Region(
                address: $0.range.address,
                pageSize: $0.range.pageSize,
                pageCount: $0.range.pageCount,
                offset: $0.offset
            )
        }
        keepsSocketOpen = guest.handOff.keepsSocketOpen
        self.settings = settings
    }

    /// Takes the task that the process which started this one gives it: what a handler makes, and nothing else.
    public init(_ inherited: inout Inherited) throws {
        let file = try inherited.memoryFile()
        guard file.byteCount <= GuestTask.maxByteCount else {
            throw ServiceFailure(description: "a worker was given a task of \(file.byteCount) bytes")
        }
        try self.init(reading: file.contents())
    }

    init(reading bytes: [UInt8]) throws {
        self = try JSONDecoder().decode(Self.self, from: Data(bytes))
        let isSound =
            !regions.isEmpty && regions.allSatisfy(\.isSound)
            && (1...Wire.maxUrgentLanes).contains(settings.faultThreads)
            && GuestTask.times.contains(settings.giveUpSeconds) && GuestTask.times.contains(settings.peerTimeoutSeconds)
        guard isSound else { throw ServiceFailure(description: "a worker was given a task that no handler makes") }
    }

    /// Seconds that a command line can ask for.
    private static let times = 0...1e9

    /// Where a page is in the snapshot's file, in bytes.
    func offset(ofPage page: Int, region: Int) -> UInt64 {
        regions[region].offset + UInt64(page) * UInt64(regions[region].pageSize)
    }
}
