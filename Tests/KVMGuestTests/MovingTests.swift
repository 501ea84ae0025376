import Guest
import KVMGuestCode
import LinuxSystem
import Testing

@testable import KVMGuest

@Suite("A guest in a virtual machine", .needsKVM, .timeLimit(.minutes(1)))
struct MovingTests {
    @Test(
        "continues in the middle of a loop in another virtual machine, and finds its memory right",
        arguments: [(1, true), (3, true), (2, false)]
    )
    func moves(processors: Int, hasInterruptChip: Bool) throws {
        var guest = try KVMWorkload.small(processors: processors, hasInterruptChip: hasInterruptChip)
        for _ in 0..<4 {
            try guest.run(marks: 7)
            let arrived = try guest.moved()
            for processor in 0..<processors {
                #expect(try arrived.registers(of: processor) == guest.registers(of: processor))
            }
            #expect(arrived.serial.marks == guest.serial.marks)
            #expect(arrived.activity.operations == 0)
            guest = arrived
        }
        try guest.run(marks: 7)
        #expect(guest.serial.marks >= 35)
        #expect(try guest.verify() == Verification(pagesChecked: (processors + 1) * 256, corrupt: 0))
    }

    @Test("can be stopped and resumed any number of times without losing or repeating a mark")
    func stopsOften() throws {
        let guest = try KVMWorkload.small()
        try guest.run(marks: 1)
        for round in 0..<100 {
            try guest.run(marks: UInt64(round % 2))
            #expect(try guest.corrupt == 0)
            let marks = try guest.marksByRegisters()
            let isDue = try guest.registers(of: 0).rdi & 0xfffff == 0 && guest.serial.marks == marks - 1
            #expect(guest.serial.marks == marks || isDue)
        }
    }

    @Test("finishes an interrupted operation before the stop, and does not repeat it elsewhere")
    func finishesOutput() throws {
        var guest = try KVMWorkload.small()
        for mark: UInt64 in 1...10 {
            let processor = guest.machine.processors[0]
            processor.prepare()
            try processor.run { exit in
                guard case .output(_, UInt8(ascii: "a")) = exit else { return }
                _ = guest.serial.take(UInt8(ascii: "a"), from: processor, guest.memory)
                processor.interrupt()
            }
            #expect(guest.serial.marks == mark)
            #expect(try guest.marksByRegisters() == mark)
            guest = try guest.moved()
        }
        #expect(try guest.corrupt == 0)
    }

    @Test("does nothing if it is stopped before it began")
    func stopsAtOnce() throws {
        let guest = try KVMWorkload.small(processors: 2)
        for processor in guest.machine.processors {
            processor.prepare()
            processor.interrupt()
            try processor.run { _ in Issue.record("it ran") }
            #expect(try processor.registers().rip == 0)
        }
        #expect(try guest.corrupt == 0)
    }

    @Test("has a clock that stands still during a stop and continues elsewhere")
    func clock() throws {
        func nanoseconds(_ guest: KVMWorkload) throws -> UInt64 {
            let saved = try guest.devices.save().first { $0.name == "clock" }
            return (saved?.state ?? []).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        let guest = try KVMWorkload.small()
        try guest.run(marks: 2)
        let stopped = try nanoseconds(guest)
        #expect(stopped > 0)
        let arrived = try guest.moved()
        #expect(try nanoseconds(arrived) == stopped)
        let begin = MonotonicClock.now()
        try arrived.run(marks: 2)
        let (ran, shown) = (MonotonicClock.now() - begin, try nanoseconds(arrived))
        #expect(stopped < shown && shown <= stopped + ran)
    }

    @Test("notices that its registers have changed", arguments: ["fpu", "lapic", "msrs"])
    func notices(device: String) throws {
        let guest = try KVMWorkload.small()
        // Not between two passes, where the guest sets all of these registers and could not notice a change.
        try guest.runToMidSlice()
        let arrived = try guest.twin()
        let others = try KVMWorkload.small().devices.save()
        let mixed = try zip(guest.devices.save(), others).map { $0.name == "vcpu0-\(device)" ? $1 : $0 }
        _ = try arrived.devices.load(mixed)
        let marks = guest.serial.marks
        #expect(try arrived.runToItsEnd().hasPrefix("vCPU 0 has found data that it did not write, at page "))
        #expect(arrived.serial.marks == marks)
        #expect(try arrived.corrupt == 1)
    }

    @Test("ends when it finds a wrong page, and never runs again", arguments: [0, 4092])
    func wrongPage(offset: Int) throws {
        let guest = try KVMWorkload.small(processors: 2)
        try guest.run(marks: 3)
        guest.memory.region.page(guest.memory.slice(of: 1).lowerBound + 5)
            .storeBytes(of: 7, toByteOffset: offset, as: UInt32.self)
        #expect(try guest.corrupt == 1)
        #expect(try guest.runToItsEnd() == "vCPU 1 has found data that it did not write, at page 390")
        #expect(!guest.activity.isRunning)
        #expect(try guest.corrupt == 1)
        #expect(throws: DeviceError.self) { try guest.devices.save() }
        let error = #expect(throws: KVMGuestError.self) { try guest.run() }
        #expect(
            "\(error, default: "")" == "the guest has ended: vCPU 1 has found data that it did not write, at page 390"
        )
    }

    @Test("is verified on every byte that it does not check itself", arguments: [0, 1, 2, 511], [4000, 8])
    func damage(page: Int, offset: Int) throws {
        let guest = try KVMWorkload.small()
        try guest.run(marks: 3)
        // Unused bytes of the first two pages do not matter.
        let counts = page > 1 || offset == 8
        guest.memory.region.page(page)[offset] ^= 1
        #expect(try guest.corrupt == (counts ? 1 : 0))
    }
}

extension UnsafeMutableRawPointer {
    fileprivate subscript(offset: Int) -> UInt8 {
        get { load(fromByteOffset: offset, as: UInt8.self) }
        nonmutating set { storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self) }
    }
}

extension KVMWorkload {
    /// The number of marks that the only vCPU has written or is about to write, according to its registers.
    fileprivate func marksByRegisters() throws -> UInt64 {
        let registers = try registers(of: 0)
        // The guest writes a mark at each MiB, two in a pass.
        let passes = UInt64(UInt32(truncatingIfNeeded: registers.rbp) &* GuestMemory.passesPerKey)
        let isTurning = registers.rip == UInt64(guest_code_turn())
        return (passes - (isTurning ? 0 : 1)) * 2 + (isTurning ? 0 : registers.rdi >> 20)
    }
}

extension GuestMemory {
    /// The inverse of STEP, by which a key gives its number of passes.
    fileprivate static let passesPerKey: UInt32 = {
        var inverse: UInt32 = 1
        for _ in 0..<5 { inverse = inverse &* (2 &- 0x9e37_79b1 &* inverse) }
        return inverse
    }()
}
