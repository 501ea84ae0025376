import Foundation
import Telemetry

/// The texts of the live state.
enum StateJSON {
    private static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.withoutEscapingSlashes]
        // Figures that are not finite do not occur; a text that cannot be made must not end the process.
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf",
            negativeInfinity: "-inf",
            nan: "nan"
        )
        // Every value is one of our own types, which have a JSON form.
        return (try? encoder.encode(value)).map { Array($0) } ?? Array("{}".utf8)
    }

    /// An object of texts.
    static func object(_ members: [String: String]) -> [UInt8] { encode(members) }

    /// A tick that says only the time.
    static func time(of state: LiveState) -> [UInt8] { encode(Tick(before: state, after: state)) }

    /// A whole state.
    static func whole(_ state: LiveState) -> [UInt8] { encode(state) }

    /// The members that have changed since an earlier state; nil if none has.
    static func tick(from before: LiveState, to after: LiveState) -> [UInt8]? {
        var same = before
        same.unixMilliseconds = after.unixMilliseconds
        return same == after ? nil : encode(Tick(before: before, after: after))
    }
}

/// The members of a state that have changed.
private struct Tick: Encodable {
    let before: LiveState
    let after: LiveState

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: LiveState.CodingKeys.self)
        try container.encode(after.unixMilliseconds, forKey: .unixMilliseconds)
        if after.name != before.name { try container.encode(after.name, forKey: .name) }
        if after.control != before.control { try container.encode(after.control, forKey: .control) }
        if after.migration != before.migration {
            if let earlier = before.migration, let later = after.migration {
                try container.encode(MigrationChange(before: earlier, after: later), forKey: .migration)
            } else {
                try container.encode(after.migration, forKey: .migration)
            }
        }
        if after.pages != before.pages { try container.encode(after.pages, forKey: .pages) }
        if after.stall != before.stall { try container.encode(after.stall, forKey: .stall) }
        if after.lanes != before.lanes { try container.encode(after.lanes, forKey: .lanes) }
        if after.server != before.server { try container.encode(after.server, forKey: .server) }
        if after.map != before.map {
            if let changes = before.map.flatMap({ after.map?.changes(since: $0) }) {
                try container.encode(changes, forKey: .map)
            } else {
                try container.encode(after.map, forKey: .map)
            }
        }
        if after.eventCount != before.eventCount, let events = after.events {
            let new = max(0, after.eventCount - before.eventCount)
            try container.encode(Array(events.suffix(new)), forKey: .events)
        }
        if after.guests != before.guests {
            let changes = GuestChange.changes(from: before.guests ?? [], to: after.guests ?? [])
            try container.encode(changes, forKey: .guests)
        }
    }
}

/// The members of a migration that have changed.
///
/// The time of a migration changes always, and what the states can be never does.
private struct MigrationChange: Encodable {
    let before: LiveState.Migration
    let after: LiveState.Migration

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: LiveState.Migration.CodingKeys.self)
        func add<Value: Encodable & Equatable>(
            _ member: KeyPath<LiveState.Migration, Value>,
            _ key: LiveState.Migration.CodingKeys
        ) throws {
            let value = after[keyPath: member]
            if value != before[keyPath: member] { try container.encode(value, forKey: key) }
        }
        try add(\.role, .role)
        try add(\.id, .id)
        try add(\.workload, .workload)
        try add(\.runsHere, .runsHere)
        try add(\.awaitsCont, .awaitsCont)
        try add(\.memoryBytes, .memoryBytes)
        try add(\.pageSize, .pageSize)
        try add(\.sides, .sides)
        try add(\.possible, .possible)
        try add(\.edges, .edges)
        try add(\.error, .error)
        try add(\.total, .total)
        try add(\.downtime, .downtime)
        try add(\.switchover, .switchover)
    }
}

/// A guest that has changed, or that is gone.
private enum GuestChange: Encodable {
    case changed(LiveGuest)
    case gone(LiveGuest.ID)

    private enum CodingKeys: String, CodingKey { case id, gone }

    static func changes(from before: [LiveGuest], to after: [LiveGuest]) -> [GuestChange] {
        let earlier = Dictionary(before.map { ($0.id, $0) }) { one, _ in one }
        let later = Set(after.map(\.id))
        return after.filter { earlier[$0.id] != $0 }.map { .changed($0) }
            + before.filter { !later.contains($0.id) }.map { .gone($0.id) }
    }

    func encode(to encoder: any Encoder) throws {
        switch self {
        case .changed(let guest): try guest.encode(to: encoder)
        case .gone(let id):
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(id, forKey: .id)
            try container.encode(true, forKey: .gone)
        }
    }
}
