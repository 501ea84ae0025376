import LinuxSystem
import Telemetry

/// A restored guest, played by this process: it hands its memory to a page fault handler, as Firecracker does.
extension Bench {
    /// Measures one round of single faults of one thread at random pages, served by the bare code.
    ///
    /// - Parameters:
    ///   - pageCount: the number of pages, each of which is touched once.
    ///   - polls: whether the threads of the bare code poll before they sleep.
    ///   - think: nanoseconds for which the thread works after each touch.
    /// - Throws: ``BenchFailure`` if the far end fails or a page is wrong, or the error of the call that failed.
    package func bareFaults(_ pageCount: Int, polls: Bool = false, think: UInt64 = 0) throws -> Figures {
        let setup = BenchSetup(service: .bare, pageCount: pageCount, waiting: polls ? .polling : .sleeping)
        return try round(setup) { rig, figures in
            let recorder = LatencyRecorder()
            let begin = MonotonicClock.now()
            try touchAll(rig, [recorder], think: think)
            figures.seconds = Double(MonotonicClock.now() - begin) / 1e9
            figures.take([recorder])
        }
    }

    /// Measures faults on every page of a snapshot, each touched once.
    ///
    /// - Parameters:
    ///   - order: the numbers of all pages, in the order in which they are touched. Page n must begin with n + 1, as 64
    ///     bits.
    ///   - socketPath: the Unix socket at which the handler listens.
    ///   - think: nanoseconds for which the guest works after each touch.
    /// - Throws: ``BenchFailure`` if a page is wrong, `SocketAddressError`, or the `SystemError` of the call that
    ///   failed.
    package func restored(touching order: [Int], with socketPath: String, think: UInt64 = 0) throws -> Figures {
        let region = try MemoryRegion(name: "restored", pageCount: order.count)
        let userfaultfd = try Userfaultfd(features: .eventRemove)
        try userfaultfd.register(region.range)
        let memory = RigMemory(region, userfaultfd)
        // The handler serves the memory as long as this connection is open.
        let socket = try StreamSocket(connectingTo: SocketAddress("unix:\(socketPath)"))
        let rig = RestoredRig(memory)
        let recorder = LatencyRecorder()
        var figures = Figures()
        let begin = MonotonicClock.now()
        try socket.send(RestoredRig.handOff(of: region), with: memory.userfaultfd)
        // Most pages of a block that was touched arrive ahead, and raise no fault.
        try touchAll(rig, [recorder], order: order, beyond: Bench.presentAccess, think: think)
        figures.seconds = Double(MonotonicClock.now() - begin) / 1e9
        figures.take([recorder])
        return figures
    }
}

/// Memory that a handler in another process fills.
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
