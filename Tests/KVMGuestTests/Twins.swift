@_spi(Controller) import Guest
import LinuxSystem
import Synchronization
import Testing

@testable import KVMGuest

extension Trait where Self == ConditionTrait {
    /// Skips a test if no virtual machine can run.
    static var needsKVM: Self {
        .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
    }
}

extension KVMWorkload {
    /// A new guest of a few MiB.
    static func small(processors: Int = 1, hasInterruptChip: Bool = true) throws -> KVMWorkload {
        try KVMWorkload(
            new: KVMConfiguration(
                memoryBytes: (processors + 1) << 20,
                processors: processors,
                hasInterruptChip: hasInterruptChip
            )
        )
    }

    /// Makes another virtual machine with a copy of this one's memory.
    ///
    /// The devices of the copy have loaded nothing.
    func twin() throws -> KVMWorkload {
        let region = try configuration.makeMemory()
        region.base.copyMemory(from: memory.region.base, byteCount: region.byteCount)
        return try KVMWorkload(KVMConfiguration(description), memory: region, output: nil)
    }

    /// Moves the guest into another virtual machine.
    func moved() throws -> KVMWorkload {
        let arrived = try twin()
        _ = try arrived.devices.load(try devices.save())
        return arrived
    }

    func run() throws {
        _ = try run(RunPermit(DevicesLoaded.inPlace()))
    }

    /// Runs until the guest has written `marks` more good marks, and stops it wherever it is.
    func run(marks: UInt64) throws {
        try run()
        while activity.operationsSinceStart < marks, activity.isRunning { JoinedThread.yield() }
        stop()
    }

    /// Runs until the only vCPU is well past a mark and well before the next.
    func runToMidSlice() throws {
        repeat { try run(marks: 1) } while !(264..<500).contains(memory.page(at: try registers(of: 0)))
    }

    /// Runs until the guest ends by itself, and returns why.
    func runToItsEnd() throws -> String {
        let end = try End()
        onEnd { end.tell($0) }
        try run()
        defer { stop() }
        let hasEnded = end.flag.wait(seconds: 30)
        try #require(hasEnded, "the guest still runs")
        return end.reason
    }

    func registers(of processor: Int) throws -> VirtualProcessor.Registers {
        try machine.processors[processor].registers()
    }

    var corrupt: Int? { get throws { try verify()?.corrupt } }
}

/// Waits for the end of a guest.
private final class End: Sendable {
    let flag: EventDescriptor
    private let told = Mutex("")

    init() throws(SystemError) {
        flag = try EventDescriptor()
    }

    func tell(_ reason: String) {
        told.withLock { $0 = reason }
        flag.raise()
    }

    var reason: String { told.withLock { $0 } }
}
