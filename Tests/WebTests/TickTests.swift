import Foundation
import Identity
import Telemetry
import Testing

@testable import Web

@Suite("A tick")
struct TickTests {
    private func tick(_ before: LiveState, _ after: LiveState) throws -> [String: Any]? {
        guard let bytes = StateJSON.tick(from: before, to: after) else { return nil }
        return try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
    }

    private func guest(_ id: LiveGuest.ID, resident: Int = 0) -> LiveGuest {
        var guest = LiveGuest(id: id, name: "vm", socket: "/s", state: "linked", server: "tcp:h:1", policy: "hold")
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
        before.guests = [guest(.process(1)), guest(.process(2)), guest(.process(3))]
        var after = before
        after.guests = [guest(.process(1)), guest(.process(2), resident: 9), guest(.process(4))]
        let guests = try #require(try tick(before, after)?["guests"] as? [[String: Any]])
        #expect(guests.map { $0["id"] as? String } == ["2", "4", "3"])
        #expect(guests[0]["fill"] is NSNull && guests[0]["resident"] as? Int == 9)
        #expect(guests[2].count == 2 && guests[2]["gone"] as? Bool == true)
    }

    @Test("tells guests of other PID namespaces apart, which have no process id")
    func outside() throws {
        var before = LiveState(.handler)
        before.guests = [guest(.outside(1)), guest(.outside(2)), guest(.outside(3))]
        var after = before
        after.guests = [guest(.outside(1)), guest(.outside(2), resident: 9)]
        let guests = try #require(try tick(before, after)?["guests"] as? [[String: Any]])
        #expect(guests.map { $0["id"] as? String } == ["outside-2", "outside-3"])
        #expect(guests.map { $0["gone"] as? Bool } == [nil, true])
        #expect(guests[0]["pid"] as? Int == 0)
    }

    @Test("has of a migration what has changed, and null for what is gone")
    func migration() throws {
        var before = LiveState(.agent)
        before.migration = LiveState.Migration()
        before.migration?.possible = ["source": [.none, .setup]]
        before.migration?.edges = ["source": [[.none, .setup]]]
        before.migration?.sides = [LiveState.Migration.Side(side: "source", own: true, states: [])]
        before.migration?.error = "a reason"
        var after = before
        after.migration?.total = 5
        after.migration?.error = nil
        let change = try #require(try tick(before, after)?["migration"] as? [String: Any])
        #expect(Set(change.keys) == ["total_us", "error"] && change["error"] is NSNull)
        // The page has nothing yet that it could complete.
        before.migration = nil
        let whole = try #require(try tick(before, after)?["migration"] as? [String: Any])
        #expect(whole["possible"] != nil && whole["edges"] != nil && whole["sides"] != nil)
    }
}
