import LinuxSystem
import OwnThread
import Testing

@Suite("A mailbox", .ownThread, .timeLimit(.minutes(1)))
struct MailboxTests {
    @Test("gives messages in the order in which they were put")
    func order() throws {
        let mailbox = try Mailbox<Int>()
        for number in 1...3 { mailbox.put(number) }
        #expect((1...3).map { _ in mailbox.next() } == [1, 2, 3])
        #expect(mailbox.next(milliseconds: 0) == nil)
    }

    @Test("wakes the thread that waits for a message")
    func wakes() throws {
        let mailbox = try Mailbox<Int>()
        let sender = try JoinedThread(name: "sender") {
            MonotonicClock.sleep(nanoseconds: 20_000_000)
            for number in 1...1000 { mailbox.put(number) }
        }
        #expect((1...1000).map { _ in mailbox.next() } == Array(1...1000))
        sender.join()
    }

    @Test("keeps messages that are not wanted yet, also while it waits for another one")
    func chooses() throws {
        let mailbox = try Mailbox<Int>()
        mailbox.put(1)
        mailbox.put(2)
        #expect(mailbox.next(milliseconds: 0, where: { $0 == 3 }) == nil)
        let sender = try JoinedThread(name: "sender") {
            MonotonicClock.sleep(nanoseconds: 20_000_000)
            mailbox.put(4)
            mailbox.put(3)
        }
        #expect(mailbox.next { $0 == 3 } == 3)
        sender.join()
        #expect([mailbox.next(), mailbox.next(), mailbox.next()] == [1, 2, 4])
    }

    @Test("ends a wait in time although messages arrive that are not wanted")
    func timeout() throws {
        let mailbox = try Mailbox<Int>()
        let sender = try JoinedThread(name: "sender") {
            for number in 0..<20 {
                mailbox.put(number)
                MonotonicClock.sleep(nanoseconds: 10_000_000)
            }
        }
        let begin = MonotonicClock.now()
        #expect(mailbox.next(milliseconds: 60, where: { $0 < 0 }) == nil)
        let time = MonotonicClock.time(since: begin)
        #expect(time >= .milliseconds(60) && time < .milliseconds(190))
        sender.join()
    }

    @Test("drops its oldest message when it is full")
    func limit() throws {
        let mailbox = try Mailbox<Int>(limit: 2)
        for number in 1...3 { mailbox.put(number) }
        #expect([mailbox.next(), mailbox.next()] == [2, 3])
        #expect(mailbox.next(milliseconds: 0) == nil)
    }
}
