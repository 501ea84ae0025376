import Guest
import LinuxSystem

/// KVM's interrupt chip: two 8259s and an I/O APIC, as the kernel's structures.
final class InterruptChipDevice: Device {
    let name = "irqchip"
    private let machine: GuestMachine

    init(_ machine: GuestMachine) {
        self.machine = machine
    }

    func save() throws -> [UInt8] { try machine.machine.interruptChip() }

    func load(_ state: [UInt8]) throws {
        try checkLength(of: state, VirtualMachine.interruptChipBytes)
        try machine.machine.setInterruptChip(state)
    }
}
