import CShims
import Glibc
import SystemPackage

/// A virtual machine of KVM.
///
/// The kernel keeps the machine until the last of its vCPUs is closed too.
package struct VirtualMachine: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor
    private let kvm: KVM
    private let cpuid: [UInt8]
    private let modelRegisters: [UInt32]
    /// Whether the kernel emulates the machine's interrupt chip.
    package let hasInterruptChip: Bool

    /// Creates a machine without memory and vCPUs.
    ///
    /// - Parameters:
    ///   - kvm: the KVM device, which the machine keeps open.
    ///   - hasInterruptChip: whether the kernel emulates an interrupt chip, with a local APIC for each vCPU.
    package init(on kvm: consuming KVM, hasInterruptChip: Bool) throws(SystemError) {
        let device = kvm.descriptor.raw
        let machine = try attempt("make a virtual machine") { () throws(Errno) in
            OwnedDescriptor(try kernel(.kvmCreate) { shim_ioctl(device, shim_kvm_create_vm, 0) })
        }
        let raw = machine.raw
        _ = try attempt("set the TSS address of a virtual machine") { () throws(Errno) in
            // Three pages that some Intel processors need, at an address where this program's machines have no memory.
            try kernel(.kvmSet) { shim_ioctl(raw, shim_kvm_set_tss_addr, 0xfffb_d000) }
        }
        if hasInterruptChip {
            _ = try attempt("make an interrupt chip") { () throws(Errno) in
                try kernel(.kvmCreate) { shim_ioctl(raw, shim_kvm_create_irqchip, 0) }
            }
        }
        let (cpuid, modelRegisters) = (try kvm.supportedCPUID(), try kvm.modelRegisters())
        descriptor = machine
        self.cpuid = cpuid
        self.modelRegisters = modelRegisters
        self.kvm = kvm
        self.hasInterruptChip = hasInterruptChip
    }

    /// Gives memory to the machine, from the guest's address 0 on.
    ///
    /// The memory must stay mapped as long as the machine runs.
    package func map(_ memory: MemoryRegion) throws(SystemError) {
        var region = kvm_userspace_memory_region()
        region.memory_size = UInt64(memory.byteCount)
        region.userspace_addr = UInt64(UInt(bitPattern: memory.base))
        _ = try attempt("give \(memory.byteCount) bytes of memory to a virtual machine") { () throws(Errno) in
            try descriptor.control(.kvmSet, shim_kvm_set_user_memory_region, &region)
        }
    }

    /// Creates a vCPU with all features that KVM supports on this host.
    ///
    /// - Parameter index: the vCPU's number, from 0.
    package func makeProcessor(_ index: Int) throws(SystemError) -> VirtualProcessor {
        let raw = descriptor.raw
        let processor = try attempt("make vCPU \(index)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.kvmCreate) { shim_ioctl(raw, shim_kvm_create_vcpu, UInt(index)) })
        }
        var cpuid = cpuid
        try processor.transfer(.kvmSet, shim_kvm_set_cpuid2, &cpuid, "choose the features of vCPU \(index)")
        let size = try attempt("ask KVM for the size of a vCPU's page") { () throws(Errno) in
            try kvm.descriptor.control(.kvmCheckExtension, shim_kvm_get_vcpu_mmap_size)
        }
        return VirtualProcessor(
            index: index,
            page: try Mapping(sharing: processor, byteCount: Int(size)),
            descriptor: processor,
            floatingPointBytes: descriptor.extent(of: KVM_CAP_XSAVE2),
            modelRegisters: modelRegisters
        )
    }

    /// The guest's clock, in nanoseconds.
    package func clock() throws(SystemError) -> UInt64 {
        var data = kvm_clock_data()
        _ = try attempt("read the clock of a virtual machine") { () throws(Errno) in
            try descriptor.control(.kvmGet, shim_kvm_get_clock, &data)
        }
        return data.clock
    }

    /// Sets the guest's clock, in nanoseconds; the clock runs from there at once.
    package func setClock(_ nanoseconds: UInt64) throws(SystemError) {
        var data = kvm_clock_data()
        data.clock = nanoseconds
        _ = try attempt("set the clock of a virtual machine") { () throws(Errno) in
            try descriptor.control(.kvmSet, shim_kvm_set_clock, &data)
        }
    }

    /// Bytes of the interrupt chip's state: the three chips of a PC, in the kernel's form.
    package static let interruptChipBytes = 3 * MemoryLayout<kvm_irqchip>.size

    /// The state of the interrupt chip, which the machine must have: see ``hasInterruptChip``.
    package func interruptChip() throws(SystemError) -> [UInt8] {
        var state: [UInt8] = []
        for chip: UInt32 in 0..<3 {
            var bytes = [UInt8](repeating: 0, count: MemoryLayout<kvm_irqchip>.size)
            bytes.withUnsafeMutableBytes { $0.storeBytes(of: chip, as: UInt32.self) }
            try descriptor.transfer(.kvmGet, shim_kvm_get_irqchip, &bytes, "save interrupt chip \(chip)")
            state += bytes
        }
        return state
    }

    /// Loads a state that ``interruptChip()`` has returned.
    ///
    /// - Parameter state: exactly ``interruptChipBytes`` bytes.
    package func setInterruptChip(_ state: [UInt8]) throws(SystemError) {
        for chip: UInt32 in 0..<3 {
            let size = MemoryLayout<kvm_irqchip>.size
            var bytes = Array(state[Int(chip) * size..<(Int(chip) + 1) * size])
            // The chip's number comes from the part's position; the number in the state is not trusted.
            bytes.withUnsafeMutableBytes { $0.storeBytes(of: chip, as: UInt32.self) }
            try descriptor.transfer(.kvmSet, shim_kvm_set_irqchip, &bytes, "load interrupt chip \(chip)")
        }
    }
}
