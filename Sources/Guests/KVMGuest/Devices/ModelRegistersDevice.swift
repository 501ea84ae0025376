import Guest
import LinuxSystem

/// A vCPU's model-specific registers.
///
/// The state is the number of registers (32 bits), then for each register its number (32 bits) and its value (64 bits).
final class ModelRegistersDevice: Device {
    let name: String
    private let processor: VirtualProcessor

    init(_ processor: VirtualProcessor) {
        name = "vcpu\(processor.index)-msrs"
        self.processor = processor
    }

    func save() -> [UInt8] {
        var writer = StateWriter()
        let registers = processor.saveModelRegisters()
        writer.append(UInt32(registers.count))
        for register in registers {
            writer.append(register.number)
            writer.append(register.value)
        }
        return writer.bytes
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        var registers: [VirtualProcessor.ModelRegister] = []
        for _ in 0..<(try reader.nextBits(UInt32.self)) {
            registers.append(
                VirtualProcessor.ModelRegister(number: try reader.nextBits(), value: try reader.nextBits())
            )
        }
        try reader.finish()
        guard let refused = processor.load(registers) else { return }
        let (number, value) = (String(refused.number, radix: 16), String(refused.value, radix: 16))
        throw DeviceError(
            device: name,
            reason: "KVM here does not set the MSR 0x\(number) to 0x\(value); move it between hosts whose kernels and "
                + "processors are alike"
        )
    }
}
