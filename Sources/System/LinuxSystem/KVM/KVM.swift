import CShims
import Glibc
import SystemPackage

/// The kernel's interface to virtual machines, /dev/kvm.
package struct KVM: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Opens /dev/kvm, and checks that it can do what ``VirtualMachine`` and ``VirtualProcessor`` need.
    package init() throws(SystemError) {
        let advice = "load the module kvm_intel or kvm_amd, and run as root or join the group kvm"
        let descriptor = try attempt("open /dev/kvm", advice: advice) { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open("/dev/kvm", O_RDWR | O_CLOEXEC) })
        }
        let version = try attempt("ask /dev/kvm for its API version") { () throws(Errno) in
            try descriptor.control(.kvmCheckExtension, shim_kvm_get_api_version)
        }
        guard version == KVM_API_VERSION else {
            throw SystemError("use /dev/kvm", .notSupported, advice: "its API version is not 12")
        }
        let needed = [
            (KVM_CAP_USER_MEMORY, "USER_MEMORY"), (KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"),
            (KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"), (KVM_CAP_DEBUGREGS, "DEBUGREGS"), (KVM_CAP_XSAVE2, "XSAVE2"),
            (KVM_CAP_XCRS, "XCRS"), (KVM_CAP_MP_STATE, "MP_STATE"), (KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK"),
        ]
        for (capability, name) in needed where descriptor.extent(of: capability) == 0 {
            throw SystemError("use /dev/kvm", .notSupported, advice: "this kernel lacks KVM_CAP_\(name)")
        }
        self.descriptor = descriptor
    }

    /// Why this host cannot run virtual machines, in one line; nil if it can.
    package static var unavailability: String? {
        do throws(SystemError) {
            _ = try KVM()
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// Whether the kernel can emulate an interrupt chip, with a local APIC for each vCPU.
    package var hasInterruptChip: Bool { descriptor.extent(of: KVM_CAP_IRQCHIP) > 0 }

    /// The most vCPUs that a virtual machine can have.
    package var maxProcessors: Int { descriptor.extent(of: KVM_CAP_MAX_VCPUS) }

    /// The processor features that KVM supports on this host and accepts for a vCPU, as a struct kvm_cpuid2.
    func supportedCPUID() throws(SystemError) -> [UInt8] {
        let entries = 256
        var bytes = [UInt8](repeating: 0, count: MemoryLayout<kvm_cpuid2>.size + entries * 40)
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: UInt32(entries), as: UInt32.self) }
        try descriptor.transfer(.kvmGet, shim_kvm_get_supported_cpuid, &bytes, "ask KVM for the processor's features")
        return bytes
    }

    /// The numbers of the model-specific registers that belong to a vCPU's state.
    func modelRegisters() throws(SystemError) -> [UInt32] {
        var words = [UInt32](repeating: 0, count: 4096)
        words[0] = UInt32(words.count - 1)
        var bytes = words.withUnsafeBytes { Array($0) }
        try descriptor.transfer(.kvmGet, shim_kvm_get_msr_index_list, &bytes, "ask KVM for the MSRs of a vCPU")
        words = bytes.withUnsafeBytes { Array($0.bindMemory(to: UInt32.self)) }
        return Array(words[1...Int(words[0])])
    }
}

extension OwnedDescriptor {
    /// Makes an ioctl whose argument is a number, or which has none.
    func control(_ call: SystemCall, _ request: UInt, _ argument: UInt = 0) throws(Errno) -> CInt {
        try kernel(call) { shim_ioctl(raw, request, argument) }
    }

    /// Makes an ioctl that reads or writes the memory at a pointer.
    func control(_ call: SystemCall, _ request: UInt, _ argument: UnsafeMutableRawPointer?) throws(Errno) -> CInt {
        try control(call, request, UInt(bitPattern: argument))
    }

    /// Makes an ioctl that reads or writes bytes, in a form that the request defines.
    ///
    /// - Parameter action: what the call is for, named in an error.
    func transfer(
        _ call: SystemCall,
        _ request: UInt,
        _ bytes: inout [UInt8],
        _ action: @autoclosure () -> String,
        advice: @autoclosure () -> String? = nil
    ) throws(SystemError) {
        let raw = self.raw
        let result = bytes.withUnsafeMutableBytes { bytes in
            Result { () throws(Errno) in
                try kernel(call) { shim_ioctl(raw, request, UInt(bitPattern: bytes.baseAddress)) }
            }
        }
        _ = try attempt(action(), advice: advice()) { () throws(Errno) in try result.get() }
    }

    /// KVM's answer for a capability: 0 if KVM lacks it, otherwise 1 or a number that goes with it, such as a limit.
    func extent(of capability: CInt) -> Int {
        // KVM_CHECK_EXTENSION fails for no capability: its answer to an unknown one is 0.
        Int((try? control(.kvmCheckExtension, shim_kvm_check_extension, UInt(capability))) ?? 0)
    }
}
