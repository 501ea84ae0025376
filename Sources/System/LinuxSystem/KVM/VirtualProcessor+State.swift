import CShims
import Glibc
import SystemPackage

extension VirtualProcessor {
    /// A part of a vCPU's state, which the kernel saves and loads in its own form.
    package enum State: String, CaseIterable, Hashable, Sendable {
        /// General registers, instruction pointer and flags.
        case registers
        /// Segments, control registers and tables.
        case specialRegisters = "special registers"
        /// Breakpoints.
        case debugRegisters = "debug registers"
        /// x87, SSE, AVX and all other state that XSAVE covers.
        case floatingPoint = "FPU"
        /// The registers that say which of the XSAVE state the guest has switched on.
        case extendedControl = "extended control registers"
        /// The local APIC, if the kernel emulates the interrupt chip.
        case localInterrupts = "local APIC"
        /// Exceptions and interrupts in progress.
        case events
        /// Whether the vCPU runs, is halted, or waits to be started.
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

    /// Bytes of a part of the state, always the same on one host.
    package func byteCount(of state: State) -> Int {
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

    /// Saves a part of the state; the vCPU must not be running.
    package func save(_ state: State) throws(SystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount(of: state))
        try descriptor.transfer(.kvmGet, state.requests.get, &bytes, "save the \(state.rawValue) of vCPU \(index)")
        return bytes
    }

    /// Loads a part of the state; the vCPU must not be running.
    ///
    /// - Parameters:
    ///   - state: the part to load.
    ///   - bytes: what ``save(_:)`` returned for this part; exactly ``byteCount(of:)`` bytes.
    /// - Throws: a ``SystemError`` if the kernel refuses the state, perhaps because another kind of processor has saved
    ///   it.
    package func load(_ state: State, _ bytes: [UInt8]) throws(SystemError) {
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
    /// A model-specific register and its value.
    package struct ModelRegister: Hashable, Sendable {
        /// The register's number.
        package var number: UInt32
        /// The register's value.
        package var value: UInt64

        package init(number: UInt32, value: UInt64) {
            self.number = number
            self.value = value
        }
    }

    /// Reads the model-specific registers that belong to the state; the vCPU must not be running.
    ///
    /// Registers that KVM lists but cannot read are left out.
    package func saveModelRegisters() -> [ModelRegister] {
        modelRegisters.compactMap { number in
            value(of: number).map { ModelRegister(number: number, value: $0) }
        }
    }

    /// Sets those registers that do not hold these values already; the vCPU must not be running.
    ///
    /// - Returns: the first register that cannot be set; nil if all were set.
    package func load(_ registers: [ModelRegister]) -> ModelRegister? {
        registers.first { register in
            guard value(of: register.number) != register.value else { return false }
            var request = shim_kvm_msr()
            request.count = 1
            request.entry = kvm_msr_entry(index: register.number, reserved: 0, data: register.value)
            // KVM returns the number of registers set, and fails only for memory that is not mapped.
            return (try? descriptor.control(.kvmSet, shim_kvm_set_msrs, &request)) != 1
        }
    }

    private func value(of number: UInt32) -> UInt64? {
        var request = shim_kvm_msr()
        request.count = 1
        request.entry.index = number
        // KVM returns the number of registers read. A register that KVM lists but cannot read does not belong to the
        // state.
        guard (try? descriptor.control(.kvmGet, shim_kvm_get_msrs, &request)) == 1 else { return nil }
        return request.entry.data
    }
}
