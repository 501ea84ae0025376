import Attachments
import Firecracker
import Guest
import LinuxSystem
import Synchronization

/// The device `vmstate`: everything of a microVM but its memory, in the form of Firecracker's state file.
final class MicroVMState: Device {
    typealias OnMemory = @Sendable (consuming WaitingMemory) -> Void

    let name = "vmstate"
    private let host: FirecrackerHost
    private let configuration: MicroVMConfiguration
    private let image: SnapshotImage
    /// Whether this host is resuming a microVM that no other side was permitted to start.
    private let isTakenBack = Atomic<Bool>(false)
    /// Receives the memory of an arriving microVM; nil once a load has begun.
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

    /// Has Firecracker write the snapshot, memory included, and returns the state file.
    func save() throws -> [UInt8] {
        let file = try MemoryFile(name: "pageferry-vmstate", byteCount: 0)
        try host.api.createSnapshot(state: file.path, memory: image.file.path)
        return try file.contents()
    }

    /// Has Firecracker restore the snapshot.
    ///
    /// Firecracker hands its memory over before it finishes, and touches some of the pages while it loads.
    func load(_ state: [UInt8]) throws {
        guard let onMemory = onMemory.withLock({ $0.take() }) else {
            throw MicroVMError("\(host.name) has loaded a snapshot before; start another Firecracker")
        }
        let file = try MemoryFile(name: "pageferry-vmstate", byteCount: 0)
        try file.write(state)
        // The keeper is armed before the socket exists, since the keeper must also remove it if this process dies.
        let path = HandOffPoint.newPath()
        try host.keep(.kill, removing: path)
        let handOff = try HandOffPoint(at: path) { [host, configuration] socket, message in
            do {
                let guest = try FirecrackerGuest(from: SharedSocket(socket), message)
                try onMemory(MicroVMState.memory(of: guest, in: host, for: configuration))
            } catch {
                // Firecracker would wait for its pages for ever.
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
        case .nobodyCame: throw MicroVMError("\(host.name) has loaded its snapshot without handing its memory over")
        }
    }

    /// Matches the memory that Firecracker handed over with the regions that the source announced.
    ///
    /// - Throws: ``MicroVMError`` if another process handed over memory, or if the regions do not match.
    private static func memory(
        of guest: consuming FirecrackerGuest,
        in host: FirecrackerHost,
        for configuration: MicroVMConfiguration
    ) throws -> WaitingMemory {
        guard guest.process.id == host.watched.process.id else {
            throw MicroVMError("memory was handed over by process \(guest.process.id), not by \(host.name)")
        }
        let regions = guest.handOff.regions
        let ranges = configuration.pieces.compactMap { piece in
            regions.lazy.compactMap { $0.range(of: piece, pageSize: configuration.pageSize) }.first
        }
        guard ranges.count == configuration.pieces.count,
            regions.reduce(0, { $0 + $1.range.byteCount }) == configuration.byteCount
        else {
            let told = regions.map { "\($0.range.byteCount) bytes from \($0.offset) on" }.joined(separator: ", ")
            throw MicroVMError("\(host.name) has other memory regions than the microVM at the source: \(told)")
        }
        let resident = try ranges.map { try PageBitmap(pageCount: $0.pageCount) }
        return WaitingMemory(
            userfaultfd: guest.takeUserfaultfd(),
            ranges: ranges,
            resident: resident,
            raisesEvents: true,
            pageTable: ranges.contains(where: \.isHuge) ? try PageTable(of: host.watched.process.id) : nil,
            keep: { [watched = host.watched] object in KeptObjects.keep(object) { watched.waitUntilEnded() } }
        )
    }

    /// Called before every start on this host: the first, or a resume after a failed move.
    func acquire() {
        // As long as the keeper is armed, no other side was permitted to start the microVM.
        isTakenBack.store(host.isKept(.resume), ordering: .relaxed)
    }

    /// Notes that the microVM runs here, and disarms the keeper that would resume it.
    func noteRun() {
        isTakenBack.store(false, ordering: .relaxed)
        host.letGo(.resume)
    }

    /// Called when the other side may start the microVM, or after a failed take-back.
    ///
    /// After a failed take-back the keeper stays armed: no other side may start the microVM.
    func release() {
        if !isTakenBack.exchange(false, ordering: .relaxed) { host.letGo(.resume) }
    }
}

extension FirecrackerHandOff.Region {
    /// The addresses of a piece of the memory file; nil if the piece does not lie whole in this region.
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
