import LinuxSystem
import Synchronization

/// The events of an agent in order, for which a test can wait.
final class EventLog<Event: Sendable>: Sendable {
    private let events = Mutex<[Event]>([])
    private let flag: EventDescriptor

    init() throws {
        flag = try EventDescriptor()
    }

    var all: [Event] { events.withLock(\.self) }

    func add(_ event: Event) {
        events.withLock { $0.append(event) }
        flag.raise()
    }

    /// Waits for the first event that has a value for `pick`; nil after 30 seconds.
    func first<Value>(_ pick: (Event) -> Value?) -> Value? {
        let deadline = MonotonicClock.now() + 30_000_000_000
        while MonotonicClock.now() < deadline {
            if let value = all.lazy.compactMap(pick).first { return value }
            if flag.wait(seconds: 1) { flag.clear() }
        }
        return nil
    }
}
