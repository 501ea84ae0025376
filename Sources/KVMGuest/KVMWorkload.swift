public import Guest
public import LinuxSystem
import Synchronization
public import Telemetry

/// A guest in a virtual machine of the kernel, in this process. Its program, `guest.S`, writes and checks its memory for
/// ever, and says on its serial port whether it is right.
public final class KVMWorkload: Workload {
    /// What makes it what it is.
    public let configuration: KVMConfiguration
    /// Its state beside the memory: five devices for each vCPU, then `irqchip`, where it has one, `clock` and `serial`.
    public let devices: DeviceSet

    let memory: GuestMemory
    let machine: GuestMachine
    let serial: SerialPort
    private let clock: GuestClock
    private let fate: GuestFate
    /// The threads of the vCPUs, while they run.
    private let current = Mutex<ThreadGroup?>(nil)

    /// Lets the threads of all vCPUs begin at once.
    private final class Gate: Sendable {
        let flag: EventDescriptor
        init() throws(SystemError) {
            flag = try EventDescriptor()
        }
    }

    /// Makes a stopped guest in memory that is given to it, which is not touched; the devices wait for their state.
    ///
    /// - Parameter output: where what it writes to its serial port goes to; nil for nowhere.
    init(_ configuration: KVMConfiguration, memory region: MemoryRegion, output: OutputFile?) throws {
        try configuration.validate()
        let machine = try GuestMachine(configuration, memory: region)
        self.configuration = configuration
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

    /// Makes a stopped new guest in memory of its own, which is filled. It has the kernel's interrupt chip where there is
    /// one.
    ///
    /// - Parameter output: where what it writes to its serial port goes to; nil for nowhere.
    /// - Throws: ``KVMGuestError`` when there can be no such guest here, `SystemError` when the kernel refuses.
    public convenience init(newOf memoryBytes: Int, processors: Int, output: OutputFile? = nil) throws {
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

    /// What a destination must know to make the same guest.
    public var description: GuestDescription { configuration.description }

    /// The memory that it works in.
    public var ownMemory: [MemoryRegion]? { [memory.region] }

    /// Lets every vCPU run on a thread of its own. Returns once they may run.
    ///
    /// - Throws: ``KVMGuestError`` when the guest has ended before; `SystemError` when a thread cannot be had.
    public func run(_ permit: consuming RunPermit) throws -> StartResult {
        try current.withLock { current in
            precondition(current == nil || !fate.isRunning, "a workload runs once at a time")
            // Of a guest that has ended by itself.
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
                // Interrupted before it has begun, a vCPU executes nothing.
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
        // Without the workload itself, which ends with its last owner, whether it runs or not.
        try threads.run("vcpu-\(processor.index)") { [memory, serial, fate] in
            gate.flag.wait()
            do throws(SystemError) {
                try processor.run { exit in
                    switch exit {
                    case .output(SerialPort.address, let byte):
                        if let reason = serial.take(byte, from: processor, memory) { fate.end(reason) }
                    case .output(let port, _):
                        fate.end(
                            "vCPU \(processor.index) writes to port 0x\(String(port, radix: 16)), which is nobody's"
                        )
                    case .broken(let reason): fate.end("vCPU \(processor.index) is broken: \(reason)")
                    }
                }
            } catch {
                fate.end("\(error)")
            }
        }
    }

    /// Stops in the midst of whatever it does; returns once no vCPU executes any more.
    ///
    /// A vCPU that waits for an absent page gets it first.
    public func stop() {
        current.withLock { current in
            guard let threads = current else { return }
            fate.interrupt()
            threads.join()
            current = nil
            clock.stop()
        }
    }

    /// Says whom to tell when the guest has ended by itself.
    public func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) { fate.onEnd(tell) }

    /// What the guest has reported so far in this process: a good mark on its serial port is an operation.
    public var activity: WorkloadActivity {
        var activity = serial.activity
        activity.isRunning = fate.isRunning
        return activity
    }

    /// Unknown: the kernel waits for absent pages on behalf of the guest.
    public var stalls: [LatencyRecorder] { [] }

    /// Unknown.
    public var blockedNanoseconds: UInt64? { nil }

    /// Checks every page against where the vCPUs say that they are. Pages that the guest itself found wrong count too.
    public func verify() -> Verification? {
        precondition(!activity.isRunning, "a running guest cannot be verified")
        // One that has ended by itself may be about to leave its vCPUs still.
        stop()
        var corrupt = memory.wrongFirstPages()
        for processor in machine.processors {
            guard let registers = try? processor.registers() else { return nil }
            corrupt += memory.wrongPages(of: processor.index, at: registers)
        }
        // The guest may have found a register wrong, with every page right.
        corrupt = max(corrupt, serial.badMarks)
        return Verification(pagesChecked: memory.region.pageCount, corrupt: corrupt)
    }
}
