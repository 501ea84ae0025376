import LinuxSystem

/// A guest's virtual machine and vCPUs.
final class GuestMachine: Sendable {
    let machine: VirtualMachine
    let processors: [VirtualProcessor]

    /// Makes a machine with the memory mapped at address 0, and with vCPUs whose registers are not set yet.
    ///
    /// - Throws: ``KVMGuestError`` if KVM lacks vCPUs or the interrupt chip, `SystemError` if the kernel refuses.
    init(_ configuration: KVMConfiguration, memory: MemoryRegion) throws {
        let kvm = try KVM()
        guard configuration.processors <= kvm.maxProcessors else {
            throw KVMGuestError(
                "the guest has \(configuration.processors) vCPUs, and KVM on this host supports \(kvm.maxProcessors)"
            )
        }
        guard kvm.hasInterruptChip || !configuration.hasInterruptChip else {
            throw KVMGuestError("the guest uses the kernel's interrupt chip, which KVM on this host does not have")
        }
        let machine = try VirtualMachine(on: kvm, hasInterruptChip: configuration.hasInterruptChip)
        try machine.map(memory)
        var processors: [VirtualProcessor] = []
        for index in 0..<configuration.processors { processors.append(try machine.makeProcessor(index)) }
        self.machine = machine
        self.processors = processors
    }
}
