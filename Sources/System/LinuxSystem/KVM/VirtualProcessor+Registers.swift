import CShims
import Glibc
import SystemPackage

extension VirtualProcessor {
    /// Some of a vCPU's registers.
    package struct Registers: Hashable, Sendable {
        /// The address of the next instruction.
        package var rip: UInt64 = 0
        /// General-purpose registers.
        package var rbx: UInt64 = 0, rdi: UInt64 = 0, rbp: UInt64 = 0

        /// Creates registers that are all 0.
        package init() {}
    }

    /// Reads the registers; the vCPU must not be running.
    package func registers() throws(SystemError) -> Registers {
        var raw = kvm_regs()
        _ = try attempt("read the registers of vCPU \(index)") { () throws(Errno) in
            try descriptor.control(.kvmGet, shim_kvm_get_regs, &raw)
        }
        var registers = Registers()
        registers.rip = raw.rip
        registers.rbx = raw.rbx
        registers.rdi = raw.rdi
        registers.rbp = raw.rbp
        return registers
    }

    /// Makes the vCPU begin in 32-bit protected mode without paging, with flat segments, and with SSE switched on.
    ///
    /// The vCPU must not have run yet.
    ///
    /// - Parameter registers: the initial values; all other general registers are 0.
    package func start(at registers: Registers) throws(SystemError) {
        var special = kvm_sregs()
        _ = try attempt("read the special registers of vCPU \(index)") { () throws(Errno) in
            try descriptor.control(.kvmGet, shim_kvm_get_sregs, &special)
        }
        var segment = kvm_segment()
        segment.limit = 0xffff_ffff
        (segment.present, segment.db, segment.s, segment.g) = (1, 1, 1, 1)
        (segment.type, segment.selector) = (11, 8)
        special.cs = segment
        (segment.type, segment.selector) = (3, 16)
        (special.ds, special.es, special.fs, special.gs, special.ss) = (segment, segment, segment, segment, segment)
        // PE, MP and ET are set; CD and NW are clear, so that caches are on.
        special.cr0 = 0x13
        // OSFXSR and OSXMMEXCPT.
        special.cr4 = 0x600
        var raw = kvm_regs()
        raw.rip = registers.rip
        raw.rbx = registers.rbx
        raw.rdi = registers.rdi
        raw.rbp = registers.rbp
        raw.rflags = 2
        // If there is an interrupt chip, only the first vCPU is runnable by default.
        var state = kvm_mp_state(mp_state: UInt32(KVM_MP_STATE_RUNNABLE))
        _ = try attempt("set the registers of vCPU \(index)") { () throws(Errno) in
            _ = try descriptor.control(.kvmSet, shim_kvm_set_sregs, &special)
            _ = try descriptor.control(.kvmSet, shim_kvm_set_mp_state, &state)
            return try descriptor.control(.kvmSet, shim_kvm_set_regs, &raw)
        }
    }
}
