import Telemetry
import Testing

struct BlockedTimeTests {
    @Test func `one thread's waits all count`() {
        let blocked = BlockedTime(threads: 1)
        blocked.begin(at: 10)
        blocked.end(at: 15)
        blocked.begin(at: 20)
        blocked.end(at: 27)
        #expect(blocked.nanoseconds == 12)
    }

    @Test func `of two threads only the time counts in which both waited`() {
        let blocked = BlockedTime(threads: 2)
        blocked.begin(at: 10)
        blocked.begin(at: 30)
        blocked.end(at: 42)
        #expect(blocked.nanoseconds == 12)
        blocked.end(at: 50)
        blocked.begin(at: 60)
        blocked.end(at: 70)
        #expect(blocked.nanoseconds == 12)
    }
}
