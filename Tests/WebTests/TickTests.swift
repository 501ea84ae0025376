import Foundation
import Telemetry
import Testing

@testable import Web

@Suite("A tick")
struct TickTests {
    private func tick(_ before: LiveState, _ after: LiveState) throws -> [String: Any]? {
        guard let bytes = StateJSON.tick(from: before, to: after) else { return nil }
        return try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
    }

    private func guest(_ pid: Int32, resident: Int = 0) -> LiveGuest {
        var guest = LiveGuest(pid: pid, name: "vm", socket: "/s", state: "linked", server: "tcp:h:1", policy: "hold")
        guest.resident = resident
        return guest
    }

    @Test("is empty if only the time has changed")
    func time() throws {
        let before = LiveState(.agent)
        var after = before
        after.unixMilliseconds = 7
        #expect(try tick(before, after) == nil)
    }

    @Test("has the members that have changed, and null for those that are gone")
    func members() throws {
        var before = LiveState(.agent)
        before.pages = LiveState.Pages()
        before.lanes = [LiveState.Lane(name: "urgent 0", bytes: 1, rate: 0)]
        var after = before
        after.pages?.demand = 3
        after.lanes = nil
        let tick = try #require(try tick(before, after))
        #expect(Set(tick.keys) == ["unix_ms", "pages", "lanes"])
        #expect(tick["lanes"] is NSNull && (tick["pages"] as? [String: Any])?["demand"] as? Int == 3)
    }

    @Test("has the new lines of the log only")
    func events() throws {
        func event(_ text: String) -> LiveState.Event {
            LiveState.Event(unixMilliseconds: 1, level: "notice", text: text)
        }
        var before = LiveState(.agent)
        (before.events, before.eventCount) = ([event("a"), event("b")], 10)
        var after = before
        (after.events, after.eventCount) = ([event("b"), event("b"), event("c")], 12)
        let events = try #require(try tick(before, after)?["events"] as? [[String: Any]])
        #expect(events.map { $0["text"] as? String } == ["b", "c"])
    }

    @Test("has the guests that have changed, and those that are gone")
    func guests() throws {
        var before = LiveState(.handler)
        before.guests = [guest(1), guest(2), guest(3)]
        var after = before
        after.guests = [guest(1), guest(2, resident: 9), guest(4)]
        let guests = try #require(try tick(before, after)?["guests"] as? [[String: Any]])
        #expect(guests.map { $0["pid"] as? Int } == [2, 4, 3])
        #expect(guests[0]["fill"] is NSNull && guests[0]["resident"] as? Int == 9)
        #expect(guests[2].count == 2 && guests[2]["gone"] as? Bool == true)
    }
}
