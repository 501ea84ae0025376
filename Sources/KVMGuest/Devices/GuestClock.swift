import Guest
import LinuxSystem
import Synchronization

/// The guest's clock, which is the kernel's: nanoseconds that the guest has run. It stands still while the guest is stopped.
final class GuestClock: Device {
    let name = "clock"
    private let machine: GuestMachine
    /// What it showed when it was stopped.
    private let shown = Mutex<Result<UInt64, SystemError>>(.success(0))

    init(_ machine: GuestMachine) {
        self.machine = machine
    }

    /// Lets it go on from where it stopped.
    func start() throws {
        try machine.machine.setClock(shown.withLock { $0 }.get())
    }

    func stop() {
        let now = Result { () throws(SystemError) in try machine.machine.clock() }
        shown.withLock { $0 = now }
    }

    func save() throws -> [UInt8] {
        var writer = StateWriter()
        writer.append(try shown.withLock { $0 }.get())
        return writer.bytes
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        // 292 years: whatever is added to it later cannot overflow.
        let nanoseconds: UInt64 = try reader.next(in: 0...(1 << 63 - 1)) { "it shows \($0) ns" }
        try reader.finish()
        try machine.machine.setClock(nanoseconds)
        shown.withLock { $0 = .success(nanoseconds) }
    }
}
