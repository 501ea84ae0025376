import Attachments
import Firecracker
import Guest
import LinuxSystem
import Synchronization

/// Everything of a microVM but its memory, as Firecracker saves and loads it.
final class MicroVMState: Device {
    typealias OnMemory = @Sendable (consuming WaitingMemory) -> Void

    let name = "vmstate"
    private let host: FirecrackerHost
    private let configuration: MicroVMConfiguration
    private let image: SnapshotImage
    private let isTakenBack = Atomic<Bool>(false)
    /// Of a microVM that is to come, until it does.
    private let onMemory: Mutex<OnMemory?>

    init(
        of host: FirecrackerHost,
        _ configuration: MicroVMConfiguration,
        image: SnapshotImage,
        onMemory: OnMemory?
    ) {
        self.host = host
        self.configuration = configuration
        self.image = image
        self.onMemory = Mutex(onMemory)
    }

    /// Makes the snapshot, memory and all.
    func save() throws -> [UInt8] {
        let file = try MemoryFile(name: "pageferry-vmstate", byteCount: 0)
        try host.api.createSnapshot(state: file.path, memory: image.file.path)
        return try file.contents()
    }

    /// Restores the snapshot. Firecracker hands its memory over meanwhile, and touches some of it.
    func load(_ state: [UInt8]) throws {
        guard let onMemory = onMemory.withLock({ $0.take() }) else {
            throw MicroVMError("\(host.name) has loaded a snapshot before; start another Firecracker")
        }
        let file = try MemoryFile(name: "pageferry-vmstate", byteCount: 0)
        try file.write(state)
        // Before the socket is there: whoever sees to the microVM removes it too.
        let path = HandOffPoint.newPath()
        try host.keep(.kill, removing: path)
        let handOff = try HandOffPoint(at: path) { [host, configuration] socket, message in
            do {
                let guest = try FirecrackerGuest(from: socket, message)
                try onMemory(MicroVMState.memory(of: guest, in: host, for: configuration))
            } catch {
                // It would wait for its pages for ever.
                host.kill()
                throw error
            }
        }
        do {
            try host.api.loadSnapshot(state: file.path, memory: .handler(socketPath: handOff.path), resume: false)
        } catch {
            if case .failed(let reason) = handOff.end() { throw reason }
            throw error
        }
        switch handOff.end() {
        case .received: return
        case .failed(let reason): throw reason
        case .nobodyCame: throw MicroVMError("\(host.name) has loaded its snapshot and handed no memory over")
        }
    }

    /// The memory that was handed over, as it was announced.
    private static func memory(
        of guest: consuming FirecrackerGuest,
        in host: FirecrackerHost,
        for configuration: MicroVMConfiguration
    ) throws -> WaitingMemory {
        guard guest.process.id == host.watched.process.id else {
            throw MicroVMError("process \(guest.process.id) handed memory over in the place of \(host.name)")
        }
        let regions = guest.handOff.regions
        let ranges = configuration.pieces.compactMap { piece in
            regions.lazy.compactMap { $0.range(of: piece, pageSize: configuration.pageSize) }.first
        }
        guard ranges.count == configuration.pieces.count,
            regions.reduce(0, { $0 + $1.range.byteCount }) == configuration.byteCount
        else {
            let told = regions.map { "\($0.range.byteCount) bytes from \($0.offset) on" }.joined(separator: ", ")
            throw MicroVMError("\(host.name) has other memory than the one that moves: \(told)")
        }
        let resident = try ranges.map { try PageBitmap(pageCount: $0.pageCount) }
        return WaitingMemory(
            userfaultfd: guest.takeUserfaultfd(),
            ranges: ranges,
            resident: resident,
            dropper: host.watched.process.id,
            keep: { [watched = host.watched] object in KeptObjects.keep(object) { watched.waitUntilEnded() } }
        )
    }

    /// It is to run here, be it again.
    func acquire() {
        // No other side was allowed to run it yet.
        isTakenBack.store(host.isKept(.resume), ordering: .relaxed)
    }

    /// It runs here: what was to be taken back has been.
    func noteRun() {
        isTakenBack.store(false, ordering: .relaxed)
        host.letGo(.resume)
    }

    /// The other side may start it from now on; or a take-back has failed, which allows that to nobody.
    func release() {
        if !isTakenBack.exchange(false, ordering: .relaxed) { host.letGo(.resume) }
    }
}

extension FirecrackerHandOff.Region {
    /// Where a piece of the memory file is, if it lies in this region.
    fileprivate func range(of piece: Range<Int>, pageSize: Int) -> PageRange? {
        let (begin, end) = (UInt64(piece.lowerBound), UInt64(piece.upperBound))
        guard range.pageSize == pageSize, begin >= offset, end <= offset + range.byteCount else { return nil }
        return PageRange(
            address: range.address + begin - offset,
            pageSize: pageSize,
            pageCount: piece.count / pageSize
        )
    }
}
