import CShims
import Glibc
import SystemPackage

extension VirtualProcessor {
    /// A part of a vCPU's state, which the kernel saves and loads in a form of its own.
    public enum State: String, CaseIterable, Hashable, Sendable {
        /// General registers, instruction pointer and flags.
        case registers
        /// Segments, control registers and tables.
        case specialRegisters = "special registers"
        /// Breakpoints.
        case debugRegisters = "debug registers"
        /// x87, SSE, AVX and what else XSAVE knows.
        case floatingPoint = "FPU"
        /// Which of them the guest has switched on.
        case extendedControl = "extended control registers"
        /// The local APIC, where the interrupt chip is the kernel's.
        case localInterrupts = "local APIC"
        /// Exceptions and interrupts that are under way.
        case events
        /// Whether it runs, is halted, or waits to be started.
        case runState = "run state"

        var requests: (get: UInt, set: UInt) {
            switch self {
            case .registers: (shim_kvm_get_regs, shim_kvm_set_regs)
            case .specialRegisters: (shim_kvm_get_sregs, shim_kvm_set_sregs)
            case .debugRegisters: (shim_kvm_get_debugregs, shim_kvm_set_debugregs)
            case .floatingPoint: (shim_kvm_get_xsave2, shim_kvm_set_xsave)
            case .extendedControl: (shim_kvm_get_xcrs, shim_kvm_set_xcrs)
            case .localInterrupts: (shim_kvm_get_lapic, shim_kvm_set_lapic)
            case .events: (shim_kvm_get_vcpu_events, shim_kvm_set_vcpu_events)
            case .runState: (shim_kvm_get_mp_state, shim_kvm_set_mp_state)
            }
        }
    }

    /// Bytes of a part of its state, always the same on one host.
    public func byteCount(of state: State) -> Int {
        switch state {
        case .registers: MemoryLayout<kvm_regs>.size
        case .specialRegisters: MemoryLayout<kvm_sregs>.size
        case .debugRegisters: MemoryLayout<kvm_debugregs>.size
        case .floatingPoint: floatingPointBytes
        case .extendedControl: MemoryLayout<kvm_xcrs>.size
        case .localInterrupts: MemoryLayout<kvm_lapic_state>.size
        case .events: MemoryLayout<kvm_vcpu_events>.size
        case .runState: MemoryLayout<kvm_mp_state>.size
        }
    }

    /// Saves a part of its state. It does not run.
    public func save(_ state: State) throws(SystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount(of: state))
        try descriptor.transfer(.kvmGet, state.requests.get, &bytes, "save the \(state.rawValue) of vCPU \(index)")
        return bytes
    }

    /// Takes a part of its state over. It does not run.
    ///
    /// - Parameter bytes: as many as ``byteCount(of:)`` says.
    /// - Throws: when the kernel takes no such state, perhaps since it is of another processor.
    public func load(_ state: State, _ bytes: [UInt8]) throws(SystemError) {
        precondition(bytes.count == byteCount(of: state), "a state of a wrong length")
        var bytes = bytes
        try descriptor.transfer(
            .kvmSet,
            state.requests.set,
            &bytes,
            "load the \(state.rawValue) of vCPU \(index)",
            advice: "move it between hosts whose kernels and processors are alike"
        )
    }
}

extension VirtualProcessor {
    /// A model-specific register and what it holds.
    public struct ModelRegister: Hashable, Sendable {
        /// Which one it is.
        public var number: UInt32
        /// What it holds.
        public var value: UInt64

        /// Makes a register out of its parts.
        public init(number: UInt32, value: UInt64) {
            self.number = number
            self.value = value
        }
    }

    /// The model-specific registers that are part of its state and can be read. It does not run.
    public func saveModelRegisters() -> [ModelRegister] {
        modelRegisters.compactMap { number in
            value(of: number).map { ModelRegister(number: number, value: $0) }
        }
    }

    /// Sets those of the registers that do not hold these values already. It does not run.
    ///
    /// - Returns: the first that cannot be set; nil if all were.
    public func load(_ registers: [ModelRegister]) -> ModelRegister? {
        registers.first { register in
            guard value(of: register.number) != register.value else { return false }
            var request = shim_kvm_msr()
            request.count = 1
            request.entry = kvm_msr_entry(index: register.number, reserved: 0, data: register.value)
            return (try? descriptor.control(.kvmSet, shim_kvm_set_msrs, &request)) != 1
        }
    }

    private func value(of number: UInt32) -> UInt64? {
        var request = shim_kvm_msr()
        request.count = 1
        request.entry.index = number
        guard (try? descriptor.control(.kvmGet, shim_kvm_get_msrs, &request)) == 1 else { return nil }
        return request.entry.data
    }
}
