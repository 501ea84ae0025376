import Guest
import LinuxSystem
import Testing

@testable import KVMGuest

@Suite("Devices of a guest", .needsKVM, .timeLimit(.minutes(1)))
struct StateTests {
    @Test("come in order: those of each vCPU, then those of the machine")
    func names() throws {
        let each = ["regs", "fpu", "lapic", "msrs", "events"]
        let all = ["irqchip", "clock", "serial"]
        let with = try KVMWorkload.small(processors: 2)
        #expect(
            try with.devices.save().map(\.name) == each.map { "vcpu0-\($0)" } + each.map { "vcpu1-\($0)" } + all
        )
        let without = try KVMWorkload.small(hasInterruptChip: false)
        let expected = ["vcpu0-regs", "vcpu0-fpu", "vcpu0-msrs", "vcpu0-events", "clock", "serial"]
        #expect(try without.devices.save().map(\.name) == expected)
    }

    @Test(
        "refuse a state that is cut off, too long or empty",
        arguments: [
            "vcpu0-regs", "vcpu0-fpu", "vcpu0-lapic", "vcpu0-msrs", "vcpu0-events", "irqchip", "clock", "serial",
        ]
    )
    func lengths(name: String) throws {
        let guest = try KVMWorkload.small()
        try guest.run(marks: 1)
        let saved = try guest.devices.save()
        for change in [{ $0 + [0] }, { $0.dropLast() }, { _ in [] }] as [(ArraySlice<UInt8>) -> ArraySlice<UInt8>] {
            let bad = saved.map { $0.name == name ? .init(name: name, state: Array(change($0.state[...]))) : $0 }
            let error = #expect(throws: DeviceError.self) { _ = try guest.devices.load(bad) }
            #expect(error?.device == name)
            #expect(error?.reason.contains("\n") == false)
        }
        _ = try guest.devices.load(saved)
        try guest.run(marks: 1)
        #expect(try guest.corrupt == 0)
    }

    /// Loads the guest's state with some bytes of a device changed, and returns the error.
    private func refusal(_ name: String, _ change: (inout [UInt8]) -> Void) throws -> String {
        let guest = try KVMWorkload.small()
        let saved = try guest.devices.save().map { device in
            var state = device.state
            if device.name == name { change(&state) }
            return DeviceSet.Saved(name: device.name, state: state)
        }
        let error = #expect(throws: DeviceError.self) { _ = try guest.devices.load(saved) }
        return "\(error, default: "")"
    }

    @Test("refuse a state that the kernel rejects, and say which part")
    func refusals() throws {
        // XSTATE_BV, after the extended control registers and the 512 bytes of FXSAVE, names a feature of no processor.
        let xcrs = 392
        #expect(
            try refusal("vcpu0-fpu") { $0[xcrs + 512 + 7] = 0x40 }
                == "device 'vcpu0-fpu': cannot load the FPU of vCPU 0: Invalid argument; move it between hosts whose "
                + "kernels and processors are alike"
        )
        #expect(
            try refusal("vcpu0-events") { $0[23] = 0xff }.hasPrefix(
                "device 'vcpu0-events': cannot load the events of vCPU 0"
            )
        )
        #expect(
            try refusal("vcpu0-msrs") { $0[4..<16] = [0x34, 0x12, 0xef, 0xbe] + ArraySlice(repeating: 1, count: 8) }
                == "device 'vcpu0-msrs': KVM here does not set the MSR 0xbeef1234 to 0x101010101010101; move it between "
                + "hosts whose kernels and processors are alike"
        )
        #expect(
            try refusal("clock") { $0 = [UInt8](repeating: 0xff, count: 8) }
                .contains("the clock shows 18446744073709551615")
        )
        #expect(try refusal("serial") { $0[7] = 0xff }.contains("good marks"))
    }

    @Test("refuse a guest of another shape")
    func others() throws {
        let saved = try KVMWorkload.small(processors: 2).devices.save()
        let guest = try KVMWorkload.small()
        let error = #expect(throws: DeviceError.self) { _ = try guest.devices.load(saved) }
        #expect(error?.device == "vcpu1-regs")
    }
}
