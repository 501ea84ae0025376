import Guest
import LinuxSystem

/// Parts of a vCPU's state, as the kernel's structures, one after the other.
final class ProcessorDevice: Device {
    let name: String
    private let processor: VirtualProcessor
    private let parts: [VirtualProcessor.State]

    init(_ name: String, of processor: VirtualProcessor, _ parts: VirtualProcessor.State...) {
        self.name = "vcpu\(processor.index)-\(name)"
        self.processor = processor
        self.parts = parts
    }

    func save() throws -> [UInt8] {
        try parts.flatMap { try processor.save($0) }
    }

    func load(_ state: [UInt8]) throws {
        try checkLength(of: state, parts.reduce(0) { $0 + processor.byteCount(of: $1) })
        var rest = state[...]
        for part in parts {
            let count = processor.byteCount(of: part)
            try processor.load(part, Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
    }
}

extension Device {
    /// Refuses a state whose length differs from that of this kernel's structures.
    func checkLength(of state: [UInt8], _ byteCount: Int) throws(DeviceError) {
        guard state.count != byteCount else { return }
        throw DeviceError(
            device: name,
            reason:
                "its state has \(state.count) bytes, not \(byteCount) as here; move it between hosts whose kernels and "
                + "processors are alike"
        )
    }
}

extension VirtualProcessor {
    /// The devices that hold the vCPU's state, in the order in which they must be loaded.
    func devices(hasInterruptChip: Bool) -> [any Device] {
        var devices: [any Device] = [
            ProcessorDevice("regs", of: self, .specialRegisters, .debugRegisters, .registers),
            ProcessorDevice("fpu", of: self, .extendedControl, .floatingPoint),
        ]
        if hasInterruptChip { devices.append(ProcessorDevice("lapic", of: self, .localInterrupts)) }
        // After the local APIC, since one of these registers is the deadline of the local APIC's timer.
        devices.append(ModelRegistersDevice(self))
        devices.append(ProcessorDevice("events", of: self, .events, .runState))
        return devices
    }
}
