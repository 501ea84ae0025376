import Guest
import LinuxSystem
import Synchronization

/// The guest's clock, kept by KVM: nanoseconds that the guest has run on all hosts.
///
/// The clock stands still while the guest is stopped.
final class GuestClock: Device {
    let name = "clock"
    private let machine: GuestMachine
    /// The time at the last stop or load, or the error with which reading it failed.
    private let shown = Mutex<Result<UInt64, SystemError>>(.success(0))

    init(_ machine: GuestMachine) {
        self.machine = machine
    }

    /// Starts KVM's clock from the time at which it stopped.
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
        // The bound is 292 years, so that later additions cannot overflow.
        let nanoseconds: UInt64 = try reader.next(in: 0...(1 << 63 - 1)) { "the clock shows \($0) ns" }
        try reader.finish()
        try machine.machine.setClock(nanoseconds)
        shown.withLock { $0 = .success(nanoseconds) }
    }
}
