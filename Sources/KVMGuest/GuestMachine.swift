import LinuxSystem

/// The virtual machine of a guest, with its vCPUs.
final class GuestMachine: Sendable {
    let machine: VirtualMachine
    let processors: [VirtualProcessor]

    /// Makes a machine around memory, whose vCPUs stand nowhere.
    init(_ configuration: KVMConfiguration, memory: MemoryRegion) throws {
        let kvm = try KVM()
        guard configuration.processors <= kvm.maxProcessors else {
            throw KVMGuestError(
                "the guest has \(configuration.processors) vCPUs, and KVM here up to \(kvm.maxProcessors)"
            )
        }
        guard kvm.hasInterruptChip || !configuration.hasInterruptChip else {
            throw KVMGuestError("the guest has the kernel's interrupt chip, and KVM here has none")
        }
        let machine = try VirtualMachine(on: kvm, hasInterruptChip: configuration.hasInterruptChip)
        try machine.map(memory)
        var processors: [VirtualProcessor] = []
        for index in 0..<configuration.processors { processors.append(try machine.makeProcessor(index)) }
        self.machine = machine
        self.processors = processors
    }
}
