import Foundation
import Identity
import QMP
import Synchronization
import Telemetry
import Testing

@testable import Controller

@Suite("The events of a migration, for clients")
struct StateLogTests {
    /// The events that clients have received, and the number of times that events began to be held back.
    private final class Received: Sendable {
        let events = Mutex<[String]>([])
        let times = Mutex<[QMPEvent.Timestamp]>([])
        let holds = Atomic<Int>(0)
        let sink = EventSink()

        init() {
            sink.set { [weak self] event in
                let status = if case .string(let text)? = event.data["status"] { text } else { "" }
                self?.events.withLock { $0.append(status.isEmpty ? event.name : status) }
                self?.times.withLock { $0.append(event.timestamp) }
            }
        }

        func log() -> StateLog {
            StateLog(role: .source, sink: sink) { [weak self] in _ = self?.holds.add(1, ordering: .relaxed) }
        }

        var all: [String] { events.withLock(\.self) }
    }

    @Test("wait while the workload runs nowhere, and follow in their order")
    func order() {
        let received = Received()
        var log = received.log()
        for state in [MigrationState.setup, .active] { log.note(state) }
        #expect(received.all == ["setup", "active"])
        log.hold()
        received.sink.send(.stop)
        for state in [MigrationState.device, .postcopyDevice] {
            log.note(state)
            log.settle()
        }
        #expect(received.all == ["setup", "active"])
        log.note(.postcopyActive)
        // RUN has been sent, and the start is not reported yet.
        log.settle(isStarting: true)
        #expect(received.all == ["setup", "active"])
        let before = Date.now.timeIntervalSince1970
        log.settle()
        // Each event has the time at which it happened.
        for time in received.times.withLock(\.self) {
            #expect(Double(time.seconds) + Double(time.microseconds) / 1e6 <= before)
        }
        #expect(received.all == ["setup", "active", "STOP", "device", "postcopy-device", "postcopy-active"])
        #expect(received.holds.load(ordering: .relaxed) == 1)
    }

    @Test("are held back only once, and not when the migration ends otherwise", arguments: [true, false])
    func once(isOverdue: Bool) {
        let received = Received()
        var log = received.log()
        log.note(.device)
        if isOverdue {
            log.release()
        } else {
            log.note(.failed)
            log.settle(isStarting: true)
        }
        let before = received.all
        #expect(before == (isOverdue ? ["device"] : ["device", "failed"]))
        log.note(.postcopyDevice)
        #expect(received.all == before + ["postcopy-device"])
        #expect(received.holds.load(ordering: .relaxed) == 1)
    }

    @Test("are not released by the timer of another migration")
    func otherTimer() {
        let received = Received()
        var (earlier, later) = (received.log(), received.log())
        earlier.note(.failed)
        later.note(.device)
        earlier.release()
        #expect(received.all == ["failed"])
        later.release()
        #expect(received.all == ["failed", "device"])
    }
}
