import Attachments
import Foundation
public import LinuxSystem
public import Logging
import Synchronization

/// Takes the guests that hand their memory over at a Unix socket, and has a worker serve each of them.
///
/// It keeps a copy of each guest's userfaultfd, and what the worker knows, until the guest has ended: when a worker dies,
/// another goes on.
public final class GuestListener: Sendable {
    /// Microseconds until a guest is tried again that could not be accepted for want of descriptors or memory.
    private static let shortagePause: UInt32 = 100_000
    /// Seconds that a worker lives at least whose end is no sign that the next would end too.
    private static let longLife = 1.0
    /// Seconds until another worker is tried where they end at once.
    private static let pause = 0.1

    private let listener: Listener
    private let settings: HandlerSettings
    private let logger: Logger
    private let guests = ThreadGroup()

    /// Listens for guests.
    ///
    /// - Parameter path: the socket to make, mode 0600.
    public init(at path: String, settings: HandlerSettings, logger: Logger) throws {
        listener = try Listener(at: .unix(path: path))
        self.settings = settings
        self.logger = logger
    }

    /// Where it listens.
    public var address: SocketAddress { listener.address }

    /// Takes no more guests. Workers go on with theirs.
    public func close() {
        listener.shutdown()
        listener.file?.remove()
    }

    /// Takes guests until it is closed.
    public func run() throws {
        var isShort = false
        while true {
            switch try listener.next() {
            case .connection(let socket):
                isShort = false
                try take(Handover(socket))
            case .shortage(let error):
                // Told once, not each time that it has not passed yet.
                if !isShort { logger.error("a guest waits to attach: \(error)") }
                isShort = true
                usleep(GuestListener.shortagePause)
            case .shutDown: return
            }
        }
    }

    /// Each on a thread of its own: one that connects and says nothing holds up nobody.
    private func take(_ socket: Handover<StreamSocket>) throws {
        try guests.run("guest") { [self] in
            guard let socket = socket.take() else { return }
            let peer = socket.peer
            do {
                let guest = try FirecrackerGuest(from: socket)
                try keep(guest)
            } catch {
                logger.warning("refused \(peer) at \(listener.address): \(error)")
            }
        }
    }

    /// Has a guest served until it has ended.
    private func keep(_ guest: consuming FirecrackerGuest) throws {
        let task = GuestTask(guest, at: "\(address)", settings)
        let file = try MemoryFile(name: "pageferry-session", byteCount: SessionMemory.byteCount(for: task))
        let argument = String(decoding: try JSONEncoder().encode(task), as: UTF8.self)
        let bytes = task.regions.reduce(0) { $0 + $1.range.byteCount }
        logger.notice("\(task.name) has attached with \(bytes) bytes, served by \(settings.source)")
        var failingSince: UInt64?
        while true {
            var gifts = WorkerProcess.Gifts()
            try gifts.add(guest.userfaultfd)
            try gifts.add(file)
            try gifts.add(guest.process)
            try gifts.add(guest.socket.stream)
            let begin = MonotonicClock.now()
            let worker = try WorkerProcess(
                ["attach-worker", "--log-level", "\(logger.logLevel)", argument],
                giving: gifts
            )
            let id = worker.id
            logger.info("worker \(id) serves \(task.name)")
            let end = try worker.waitForEnd()
            switch end {
            case .exited(Int(GuestService.End.done.rawValue)), .exited(Int(GuestService.End.lost.rawValue)): return
            case .exited(let status): logger.error("worker \(id) of \(task.name) has ended with status \(status)")
            case .killed(let signal): logger.error("worker \(id) of \(task.name) was killed by signal \(signal)")
            }
            if guest.process.hasEnded { return }
            let now = MonotonicClock.now()
            if Double(now - begin) / 1e9 >= GuestListener.longLife {
                failingSince = nil
            } else {
                let since = failingSince ?? begin
                failingSince = since
                guard Double(now - since) / 1e9 < settings.giveUpSeconds else {
                    logger.error("\(task.name) cannot be served: its workers end; it is \(settings.onLost.deed)")
                    return try guest.process.send(settings.onLost == .kill ? .kill : .stop)
                }
                MonotonicClock.sleep(nanoseconds: UInt64(GuestListener.pause * 1e9))
            }
            logger.notice("another worker takes \(task.name) up")
        }
    }
}

extension LostPolicy {
    fileprivate var deed: String {
        switch self {
        case .kill: "killed"
        case .hold: "stopped"
        }
    }
}
