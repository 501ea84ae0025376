package import Guest
package import LinuxSystem
import Synchronization
package import Telemetry

/// A guest in a KVM virtual machine of this process.
///
/// The guest's program, `guest.S`, writes and checks its memory for ever, and reports on its serial port whether the
/// memory is right.
package final class KVMWorkload: Workload {
    /// The configuration that the guest was made from.
    package let configuration: KVMConfiguration
    /// The devices: five for each vCPU, `irqchip` if the guest has an interrupt chip, `clock` and `serial`.
    package let devices: DeviceSet

    let memory: GuestMemory
    let machine: GuestMachine
    let serial: SerialPort
    private let clock: GuestClock
    private let fate: GuestFate
    /// The threads of the vCPUs, while they run.
    private let current = Mutex<ThreadGroup?>(nil)

    /// A gate that opens for the threads of all vCPUs at once.
    private final class Gate: Sendable {
        let flag: EventDescriptor
        init() throws(SystemError) {
            flag = try EventDescriptor()
        }
    }

    /// Makes a stopped guest in existing memory, which is not touched; the devices have no state yet.
    ///
    /// - Parameter output: receives the bytes that the guest writes to its serial port; nil to drop them.
    /// - Throws: ``KVMGuestError`` if this host cannot run such a guest, `SystemError` if the kernel refuses.
    init(_ configuration: KVMConfiguration, memory region: MemoryRegion, output: OutputFile?) throws {
        try configuration.validate()
        let machine = try GuestMachine(configuration, memory: region)
        self.configuration = configuration
        description = configuration.description
        self.machine = machine
        memory = GuestMemory(region, configuration)
        serial = SerialPort(processors: configuration.processors, output: output)
        clock = GuestClock(machine)
        fate = GuestFate(machine.processors)
        let chip: [any Device] = configuration.hasInterruptChip ? [InterruptChipDevice(machine)] : []
        devices = DeviceSet(
            machine.processors.flatMap { $0.devices(hasInterruptChip: configuration.hasInterruptChip) } + chip
                + [clock, serial]
        )
    }

    /// Makes a stopped new guest in new memory, which is filled with its first content.
    ///
    /// The guest has the kernel's interrupt chip if KVM on this host supports it.
    ///
    /// - Parameters:
    ///   - memoryBytes: the size of the memory, within the bounds of ``KVMConfiguration/memoryBytes``.
    ///   - processors: the number of vCPUs, from 1 to 12.
    ///   - output: receives the bytes that the guest writes to its serial port; nil to drop them.
    /// - Throws: ``KVMGuestError`` if this host cannot run such a guest, `SystemError` if the kernel refuses.
    package convenience init(newOf memoryBytes: Int, processors: Int, output: OutputFile? = nil) throws {
        let hasInterruptChip = try KVM().hasInterruptChip
        try self.init(
            new: KVMConfiguration(
                memoryBytes: memoryBytes,
                processors: processors,
                hasInterruptChip: hasInterruptChip
            ),
            output: output
        )
    }

    convenience init(new configuration: KVMConfiguration, output: OutputFile? = nil) throws {
        try configuration.validate()
        try self.init(configuration, memory: configuration.makeMemory(), output: output)
        memory.fill()
        for processor in machine.processors {
            try processor.start(at: memory.firstRegisters(of: processor.index))
        }
    }

    deinit {
        stop()
    }

    /// The description from which a destination makes the same guest.
    package let description: GuestDescription

    /// The guest's one memory region.
    package var sourceMemory: [SourceRegion]? { [.mapped(memory.region)] }

    /// Starts a thread for each vCPU, and returns once the vCPUs may run.
    ///
    /// - Throws: ``KVMGuestError`` if the guest has ended before, `SystemError` if a thread cannot be started or the
    ///   clock cannot be set.
    package func run(_ permit: consuming RunPermit) throws -> StartResult {
        try current.withLock { current in
            guard current == nil || !fate.isRunning else { return .runs }
            // Threads are left here only if the guest ended by itself.
            current?.join()
            current = nil
            let gate = try Gate()
            for processor in machine.processors { processor.prepare() }
            try clock.start()
            try fate.begin()
            serial.begin()
            let threads = ThreadGroup()
            do throws(SystemError) {
                for processor in machine.processors { try start(processor, in: threads, behind: gate) }
            } catch {
                // A vCPU that is interrupted before it enters the guest executes nothing.
                fate.interrupt()
                gate.flag.raise()
                threads.join()
                throw error
            }
            gate.flag.raise()
            current = threads
            return .runs
        }
    }

    private func start(_ processor: VirtualProcessor, in threads: ThreadGroup, behind gate: Gate) throws(SystemError) {
        // The closure does not retain the workload: a running guest stops when the workload's last owner releases it.
        try threads.run("vcpu-\(processor.index)") { [memory, serial, fate] in
            gate.flag.wait()
            do throws(SystemError) {
                try processor.run { exit in
                    switch exit {
                    case .output(SerialPort.address, let byte):
                        if let reason = serial.take(byte, from: processor, memory) { fate.end(reason) }
                    case .output(let port, _):
                        fate.end(
                            "vCPU \(processor.index) writes to port 0x\(String(port, radix: 16)), which no device has"
                        )
                    case .broken(let reason): fate.end("vCPU \(processor.index) cannot continue: \(reason)")
                    }
                }
            } catch {
                fate.end("\(error)")
            }
        }
    }

    /// Stops the vCPUs between any two instructions, and returns once none of them executes any more.
    ///
    /// A vCPU that waits for an absent page stops only after the page has arrived.
    package func stop() {
        current.withLock { current in
            guard let threads = current else { return }
            fate.interrupt()
            threads.join()
            current = nil
            clock.stop()
        }
    }

    /// Sets the handler for the guest's unexpected end, replacing any earlier one.
    package func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) { fate.onEnd(tell) }

    /// The guest's operations in this process; each good mark on its serial port counts as one.
    package var activity: WorkloadActivity {
        var activity = serial.activity
        activity.isRunning = fate.isRunning
        return activity
    }

    /// Empty: the kernel waits for absent pages on behalf of the guest, where this process cannot measure; the fetcher
    /// measures the faults.
    package var stalls: [LatencyRecorder] { [] }

    /// Nil, for the reason given at ``stalls``.
    package var blockedNanoseconds: UInt64? { nil }

    /// Checks every page of the stopped guest against the progress in its vCPUs' registers.
    ///
    /// Errors that the guest itself has reported count too.
    ///
    /// - Throws: `SystemError` if a vCPU's registers cannot be read.
    package func verify() throws -> Verification? {
        precondition(!activity.isRunning, "a running guest cannot be verified")
        // If the guest has ended by itself, the threads of some vCPUs may still be on their way out.
        stop()
        var corrupt = memory.wrongFirstPages()
        for processor in machine.processors {
            corrupt += memory.wrongPages(of: processor.index, at: try processor.registers())
        }
        // The guest also checks registers, so it may have reported an error although every page is right.
        corrupt = max(corrupt, serial.badMarks)
        return Verification(pagesChecked: memory.region.pageCount, corrupt: corrupt)
    }
}
