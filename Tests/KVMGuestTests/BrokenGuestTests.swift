import Guest
import LinuxSystem
import Synchronization
import SystemPackage
import Testing

@testable import KVMGuest

@Suite("A guest that is broken", .needsKVM, .timeLimit(.minutes(1)))
struct BrokenGuestTests {
    @Test(
        "ends, and says why",
        arguments: [
            ([0x0f, 0x0b], "vCPU 0 cannot continue: it has shut down after a triple fault"),
            ([0xec], "vCPU 0 cannot continue: it does unsupported I/O at port 0x0"),
            ([0xe6, 0x80], "vCPU 0 writes to port 0x80, which no device has"),
            ([0xf4], "vCPU 0 cannot continue: it has halted"),
            (
                [0xa1, 0, 0, 0, 0xd0],
                "vCPU 0 cannot continue: it reads or writes at 0xd0000000, where it has no memory"
            ),
        ] as [([UInt8], String)]
    )
    func says(code: [UInt8], reason: String) throws {
        let guest = try KVMWorkload.small(hasInterruptChip: false)
        guest.memory.region.base.copyMemory(from: code, byteCount: code.count)
        #expect(try guest.runToItsEnd() == reason)
        #expect(!guest.activity.isRunning)
        let told = Mutex("")
        guest.onEnd { reason in told.withLock { $0 = reason } }
        #expect(told.withLock { $0 } == reason)
    }

    #if DEBUG
    @Test("whose registers cannot be read is not verified, and the reason is reported")
    func unreadable() throws {
        let guest = try KVMWorkload.small()
        try guest.run(marks: 1)
        let error = #expect(throws: SystemError.self) {
            try ForcedErrno.with([.kvmGet: [.ioError]]) { _ = try guest.verify() }
        }
        #expect(error?.action == "read the registers of vCPU 0")
    }
    #endif

    @Test("ends all of its vCPUs when the first one ends")
    func all() throws {
        let guest = try KVMWorkload.small(processors: 3)
        // All vCPUs share the code; only the first is diverted, so that only it finds its block changed.
        guest.memory.region.page(1).storeBytes(of: 0xd000_0000, as: UInt32.self)
        #expect(try guest.runToItsEnd().hasPrefix("vCPU 0 cannot continue: "))
        let stopped = guest.activity
        #expect(!stopped.isRunning)
        #expect(guest.activity == stopped)
    }
}
