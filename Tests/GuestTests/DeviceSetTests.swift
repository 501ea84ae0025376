import Guest
import Synchronization
import Testing

/// A device that logs the calls of its methods.
private final class Noting: Device {
    let name: String
    private let log: Log
    private let failsToAcquire: Bool
    private let failingReleases: Mutex<Int>

    final class Log: Sendable {
        private let lines = Mutex<[String]>([])
        var all: [String] { lines.withLock { $0 } }
        func add(_ line: String) { lines.withLock { $0.append(line) } }
    }

    init(_ name: String, _ log: Log, failsToAcquire: Bool = false, failingReleases: Int = 0) {
        self.name = name
        self.log = log
        self.failsToAcquire = failsToAcquire
        self.failingReleases = Mutex(failingReleases)
    }

    func save() throws -> [UInt8] { Array(name.utf8) }
    func load(_ state: [UInt8]) throws { log.add("load \(name) \(String(decoding: state, as: UTF8.self))") }

    func release() throws {
        log.add("release \(name)")
        try failingReleases.withLock { left in
            guard left > 0 else { return }
            left -= 1
            throw DeviceError(device: name, reason: "stuck")
        }
    }

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

    @Test("loads nothing if a state has no device, and fails if a device has no state")
    func mismatch() throws {
        let log = Noting.Log()
        let devices = DeviceSet([Noting("a", log)])
        #expect(throws: DeviceError.self) {
            _ = try devices.load([.init(name: "a", state: []), .init(name: "z", state: [])])
        }
        #expect(log.all.isEmpty)
        #expect(throws: DeviceError.self) { _ = try devices.load([]) }
    }

    @Test("releases the acquired devices if a later device fails")
    func undo() throws {
        let log = Noting.Log()
        let devices = DeviceSet([Noting("a", log), Noting("b", log), Noting("c", log, failsToAcquire: true)])
        let error = #expect(throws: DeviceError.self) { try devices.acquire() }
        #expect(error == DeviceError(device: "c", reason: "held"))
        #expect(log.all == ["acquire a", "acquire b", "release b", "release a"])
    }

    @Test("releases every device, reports the first failure, and retries only the unreleased devices")
    func repeatedRelease() throws {
        let log = Noting.Log()
        let devices = DeviceSet([
            Noting("a", log, failingReleases: 1), Noting("b", log), Noting("c", log, failingReleases: 2),
        ])
        let first = #expect(throws: DeviceError.self) { try devices.release() }
        #expect(first == DeviceError(device: "c", reason: "stuck"))
        #expect(log.all == ["release c", "release b", "release a"])
        #expect(throws: DeviceError(device: "c", reason: "stuck")) { try devices.release() }
        #expect(log.all.suffix(2) == ["release c", "release a"])
        try devices.release()
        try devices.release()
        #expect(log.all.suffix(2) == ["release a", "release c"])
        try devices.acquire()
        try devices.release()
        #expect(log.all.suffix(3) == ["release c", "release b", "release a"])
    }

    @Test("reports which device could not be released after a failed acquire, and releases it later")
    func undoFails() throws {
        let log = Noting.Log()
        let devices = DeviceSet([
            Noting("a", log), Noting("b", log, failingReleases: 1), Noting("c", log, failsToAcquire: true),
        ])
        let error = #expect(throws: DeviceError.self) { try devices.acquire() }
        #expect(error == DeviceError(device: "c", reason: "held; not undone: device 'b': stuck"))
        try devices.release()
        #expect(log.all.suffix(2) == ["release c", "release b"])
    }
}
