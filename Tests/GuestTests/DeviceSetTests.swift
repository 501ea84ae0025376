import Guest
import Synchronization
import Testing

/// A device that writes down what happens to it.
private final class Noting: Device {
    let name: String
    private let log: Log
    private let failsToAcquire: Bool

    final class Log: Sendable {
        private let lines = Mutex<[String]>([])
        var all: [String] { lines.withLock { $0 } }
        func add(_ line: String) { lines.withLock { $0.append(line) } }
    }

    init(_ name: String, _ log: Log, failsToAcquire: Bool = false) {
        self.name = name
        self.log = log
        self.failsToAcquire = failsToAcquire
    }

    func save() throws -> [UInt8] { Array(name.utf8) }
    func load(_ state: [UInt8]) throws { log.add("load \(name) \(String(decoding: state, as: UTF8.self))") }
    func release() { log.add("release \(name)") }

    func acquire() throws {
        if failsToAcquire { throw DeviceError(device: name, reason: "held") }
        log.add("acquire \(name)")
    }
}

@Suite("A device set")
struct DeviceSetTests {
    @Test("loads what it saved, in order")
    func saveAndLoad() throws {
        let log = Noting.Log()
        let devices = DeviceSet([Noting("a", log), Noting("b", log)])
        _ = try devices.load(try devices.save())
        #expect(log.all == ["load a a", "load b b"])
    }

    @Test("loads nothing when a state has no device, and fails when a device has no state")
    func mismatch() throws {
        let log = Noting.Log()
        let devices = DeviceSet([Noting("a", log)])
        #expect(throws: DeviceError.self) {
            _ = try devices.load([.init(name: "a", state: []), .init(name: "z", state: [])])
        }
        #expect(log.all.isEmpty)
        #expect(throws: DeviceError.self) { _ = try devices.load([]) }
    }

    @Test("undoes what was acquired before the device that fails")
    func undo() throws {
        let log = Noting.Log()
        let devices = DeviceSet([Noting("a", log), Noting("b", log), Noting("c", log, failsToAcquire: true)])
        let error = #expect(throws: DeviceError.self) { try devices.acquire() }
        #expect(error == DeviceError(device: "c", reason: "held"))
        #expect(log.all == ["acquire a", "acquire b", "release b", "release a"])
    }
}
