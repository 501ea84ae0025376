import LinuxSystem
import Telemetry

/// A restored guest, which this process plays: it hands its memory to a page fault handler, as Firecracker does.
extension Bench {
    /// One round of single faults of one thread at random, served by the least code.
    public func bareFaults() throws -> Figures {
        try round(BenchSetup(service: .bare, pageCount: size.faults)) { rig, figures in
            let recorder = LatencyRecorder()
            try touchAll(rig, [recorder])
            figures.take([recorder])
        }
    }

    /// Touches every page of a snapshot once.
    ///
    /// - Parameters:
    ///   - order: all pages of the snapshot. Page n of it begins with n + 1, as 64 bits.
    ///   - socketPath: where the handler listens.
    public func restored(touching order: [Int], with socketPath: String) throws -> Figures {
        let region = try MemoryRegion(name: "restored", pageCount: order.count)
        let userfaultfd = try Userfaultfd(features: .eventRemove)
        try userfaultfd.register(region.range)
        let memory = RigMemory(region, userfaultfd)
        // The handler serves for as long as it is open.
        let socket = try StreamSocket(connectingTo: SocketAddress("unix:\(socketPath)"))
        let rig = RestoredRig(memory)
        let recorder = LatencyRecorder()
        var figures = Figures()
        let begin = MonotonicClock.now()
        try socket.send(RestoredRig.handOff(of: region), with: memory.userfaultfd)
        try touchAll(rig, [recorder], order: order)
        figures.seconds = Double(MonotonicClock.now() - begin) / 1e9
        figures.take([recorder])
        return figures
    }
}

/// Memory that a handler of another process fills.
private final class RestoredRig: Rig {
    let memory: RigMemory
    var pageCount: Int { memory.region.pageCount }

    init(_ memory: RigMemory) {
        self.memory = memory
    }

    func end() {}

    static func handOff(of region: MemoryRegion) -> [UInt8] {
        let size = "\"size\":\(region.byteCount),\"offset\":0,\"page_size\":4096,\"page_size_kib\":4096"
        return Array("[{\"base_host_virt_addr\":\(region.range.address),\(size)}]".utf8)
    }
}
