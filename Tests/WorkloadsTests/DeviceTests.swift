import Guest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("Devices of a workload", .timeLimit(.minutes(1)))
struct DeviceTests {
    private func workload(_ devices: DeviceSpecification...) throws -> BuiltInWorkload {
        try BuiltInWorkload(new: .small(.random, pages: 100, threads: 2, devices: devices))
    }

    @Test("have a fixed order and unique names")
    func names() throws {
        let workload = try workload(.broken(at: .load), .readsMemory, .broken(at: .start), .large(mebibytes: 1))
        let names = ["cpu", "ledger", "clock", "serial", "broken", "reads-memory", "broken-2", "large"]
        #expect(workload.devices.devices.map(\.name) == names)
        #expect(try workload.devices.save().map(\.name) == names)
    }

    @Test("save a version of four bytes for each page")
    func ledger() throws {
        let workload = try workload()
        try workload.perform(operationsPerThread: 300)
        let saved = try workload.devices.save()
        #expect(saved[1].state.count == 400)
        let versions = stride(from: 0, to: 400, by: 4).map { at in
            saved[1].state[at..<at + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        }
        #expect(versions == workload.versions)
    }

    @Test(
        "refuse a state that is cut off, too long, or of another workload",
        arguments: ["cpu", "ledger", "clock", "serial"]
    )
    func malformed(name: String) throws {
        let workload = try workload()
        try workload.run(operations: 100)
        let saved = try workload.devices.save()
        for change in [{ $0 + [0] }, { $0.dropLast() }, { _ in [] }] as [(ArraySlice<UInt8>) -> ArraySlice<UInt8>] {
            let bad = saved.map { $0.name == name ? .init(name: name, state: Array(change($0.state[...]))) : $0 }
            let error = #expect(throws: DeviceError.self) { _ = try workload.devices.load(bad) }
            #expect(error?.device == name)
        }
        _ = try workload.devices.load(saved)
    }

    @Test("refuse a processor at a page that does not exist")
    func outside() throws {
        let workload = try workload()
        var state = try workload.devices.save()[0].state
        state[4 + 8] = 50
        let error = #expect(throws: DeviceError.self) { try workload.devices.devices[0].load(state) }
        #expect(error?.reason.contains("thread 0 is at page 50 of 50") == true)
    }

    @Test("refuse counts that would overflow later", arguments: [1 << 62, UInt64.max])
    func absurdCounts(count: UInt64) throws {
        let workload = try workload()
        let saved = try workload.devices.save()
        var processor = saved[0].state
        withUnsafeBytes(of: count.littleEndian) { processor.replaceSubrange(4 + 16..<4 + 24, with: $0) }
        let operations = #expect(throws: DeviceError.self) { try workload.devices.devices[0].load(processor) }
        #expect(operations?.reason.contains("\(count) operations of thread 0 are too many") == true)
        let console = withUnsafeBytes(of: count.littleEndian) { Array($0) } + [UInt8](repeating: 32, count: 4096)
        let written = #expect(throws: DeviceError.self) { try workload.devices.devices[3].load(console) }
        #expect(written?.reason.contains("\(count) bytes written are too many") == true)
    }

    @Test("let a workload continue from the largest counts that are accepted")
    func largestCounts() throws {
        let workload = try workload()
        var saved = try workload.devices.save()
        let largest = withUnsafeBytes(of: ((UInt64(1) << 62) - 1).littleEndian) { Array($0) }
        var processor = saved[0].state
        for thread in 0..<2 { processor.replaceSubrange(4 + 24 * thread + 16..<4 + 24 * thread + 24, with: largest) }
        saved[0] = .init(name: "cpu", state: processor)
        saved[3] = .init(name: "serial", state: largest + [UInt8](repeating: 32, count: 4096))
        _ = try workload.devices.load(saved)
        try workload.run(operations: 10)
        #expect(workload.consoleText.hasSuffix(" operations\n"))
    }

    @Test("fail only at the step at which they are broken", arguments: DeviceSpecification.Step.allCases)
    func broken(step: DeviceSpecification.Step) throws {
        let source = try workload(.broken(at: step))
        // The side that made the workload can start it, whichever step fails later.
        try source.devices.acquire()
        try source.devices.release()
        let error: DeviceError?
        if step == .start {
            let destination = try source.moved()
            error = #expect(throws: DeviceError.self) { try destination.devices.acquire() }
        } else {
            error = #expect(throws: DeviceError.self) { _ = try source.moved() }
        }
        #expect(error?.description == "device 'broken': fails at \(step.rawValue), as configured")
    }

    @Test("take long only at the step at which they are slow", arguments: DeviceSpecification.Step.allCases)
    func slow(step: DeviceSpecification.Step) throws {
        let device = SlowDevice(at: step, seconds: 0.05)
        func milliseconds(_ body: () throws -> Void) rethrows -> UInt64 {
            let begin = MonotonicClock.now()
            try body()
            return (MonotonicClock.now() - begin) / 1_000_000
        }
        device.acquire()
        let times: [DeviceSpecification.Step: UInt64] = [
            .save: milliseconds { _ = device.save() },
            .load: try milliseconds { try device.load([1]) },
            .start: milliseconds { device.acquire() },
        ]
        #expect(times.filter { $0.value >= 50 }.keys.contains(step))
    }

    @Test("read the memory of every region during the load, and find a wrong page")
    func readsMemory() throws {
        let source = try workload(.readsMemory)
        try source.perform(operationsPerThread: 100)
        _ = try source.moved()
        let saved = try source.devices.save()
        source.regions[2].memory.page(0).storeBytes(of: 0x77, toByteOffset: 99, as: UInt8.self)
        let error = #expect(throws: DeviceError.self) { _ = try source.devices.load(saved) }
        #expect(
            error?.description == "device 'reads-memory': page 32 of those that it reads differs from the saved one"
        )
    }

    @Test("can have a large state, and check every byte of it")
    func large() throws {
        let device = LargeDevice(mebibytes: 1, seed: 5)
        var state = device.save()
        #expect(state.count == 1 << 20)
        try device.load(state)
        #expect(throws: DeviceError.self) { try device.load(Array(state.dropLast())) }
        state[777_777] ^= 1
        let error = #expect(throws: DeviceError.self) { try device.load(state) }
        #expect(error?.reason.contains("wrong at byte 777776") == true)
    }
}
