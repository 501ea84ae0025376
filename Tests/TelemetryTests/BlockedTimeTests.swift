import Telemetry
import Testing

struct BlockedTimeTests {
    @Test func `all waits of a single thread count`() {
        let blocked = BlockedTime(threads: 1)
        blocked.begin(at: 10 * 256)
        blocked.end(at: 15 * 256)
        blocked.begin(at: 20 * 256)
        blocked.end(at: 27 * 256)
        #expect(blocked.nanoseconds == 12 * 256)
    }

    @Test func `with two threads only the time counts in which both waited`() {
        let blocked = BlockedTime(threads: 2)
        blocked.begin(at: 10 * 256)
        blocked.begin(at: 30 * 256)
        blocked.end(at: 42 * 256)
        #expect(blocked.nanoseconds == 12 * 256)
        blocked.end(at: 50 * 256)
        blocked.begin(at: 60 * 256)
        blocked.end(at: 70 * 256)
        #expect(blocked.nanoseconds == 12 * 256)
    }
}
