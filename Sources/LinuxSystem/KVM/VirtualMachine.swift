import CShims
import Glibc
import SystemPackage

/// A virtual machine of the kernel. Its vCPUs keep it until the last of them is gone.
public struct VirtualMachine: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor
    private let kvm: KVM
    private let cpuid: [UInt8]
    private let modelRegisters: [UInt32]
    /// Whether its interrupt chip is the kernel's.
    public let hasInterruptChip: Bool

    /// Makes a machine without memory and vCPUs.
    ///
    /// - Parameter hasInterruptChip: whether it gets an interrupt chip in the kernel, and each vCPU a local APIC.
    public init(on kvm: consuming KVM, hasInterruptChip: Bool) throws(SystemError) {
        let device = kvm.descriptor.raw
        let machine = try attempt("make a virtual machine") { () throws(Errno) in
            OwnedDescriptor(try kernel(.kvmCreate) { shim_ioctl(device, shim_kvm_create_vm, 0) })
        }
        let raw = machine.raw
        _ = try attempt("make room for a virtual machine's task state") { () throws(Errno) in
            // Three pages that some Intel processors need, where no machine of ours has memory.
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

    /// Lets the machine have memory, from its address 0 on. The memory must stay mapped as long as the machine runs.
    public func map(_ memory: MemoryRegion) throws(SystemError) {
        var region = kvm_userspace_memory_region()
        region.memory_size = UInt64(memory.byteCount)
        region.userspace_addr = UInt64(UInt(bitPattern: memory.base))
        _ = try attempt("give \(memory.byteCount) bytes of memory to a virtual machine") { () throws(Errno) in
            try descriptor.control(.kvmSet, shim_kvm_set_user_memory_region, &region)
        }
    }

    /// Makes a vCPU that can do what the processors here can.
    ///
    /// - Parameter index: which one it is, from 0.
    public func makeProcessor(_ index: Int) throws(SystemError) -> VirtualProcessor {
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
    public func clock() throws(SystemError) -> UInt64 {
        var data = kvm_clock_data()
        _ = try attempt("read the clock of a virtual machine") { () throws(Errno) in
            try descriptor.control(.kvmGet, shim_kvm_get_clock, &data)
        }
        return data.clock
    }

    /// Sets the guest's clock, in nanoseconds; it goes on from there at once.
    public func setClock(_ nanoseconds: UInt64) throws(SystemError) {
        var data = kvm_clock_data()
        data.clock = nanoseconds
        _ = try attempt("set the clock of a virtual machine") { () throws(Errno) in
            try descriptor.control(.kvmSet, shim_kvm_set_clock, &data)
        }
    }

    /// Bytes of the interrupt chip's state: three chips of a PC, in the kernel's form.
    public static let interruptChipBytes = 3 * MemoryLayout<kvm_irqchip>.size

    /// The state of the interrupt chip, which it has.
    public func interruptChip() throws(SystemError) -> [UInt8] {
        var state: [UInt8] = []
        for chip: UInt32 in 0..<3 {
            var bytes = [UInt8](repeating: 0, count: MemoryLayout<kvm_irqchip>.size)
            bytes.withUnsafeMutableBytes { $0.storeBytes(of: chip, as: UInt32.self) }
            try descriptor.transfer(.kvmGet, shim_kvm_get_irqchip, &bytes, "save interrupt chip \(chip)")
            state += bytes
        }
        return state
    }

    /// Takes over what ``interruptChip()`` gave.
    ///
    /// - Parameter state: ``interruptChipBytes``.
    public func setInterruptChip(_ state: [UInt8]) throws(SystemError) {
        for chip: UInt32 in 0..<3 {
            let size = MemoryLayout<kvm_irqchip>.size
            var bytes = Array(state[Int(chip) * size..<(Int(chip) + 1) * size])
            // Which chip it is is not for the state to say.
            bytes.withUnsafeMutableBytes { $0.storeBytes(of: chip, as: UInt32.self) }
            try descriptor.transfer(.kvmSet, shim_kvm_set_irqchip, &bytes, "load interrupt chip \(chip)")
        }
    }
}
