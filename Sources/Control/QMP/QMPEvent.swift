/// An event that a server sends to all its clients unasked.
package struct QMPEvent: Sendable, Hashable {
    /// When an event happened, by the sender's wall clock.
    package struct Timestamp: Sendable, Hashable, Comparable {
        /// Seconds since 1970-01-01 00:00 UTC.
        package let seconds: Int64
        /// Microseconds after the second, 0 ..< 1 000 000.
        package let microseconds: Int64

        /// A moment.
        package init(seconds: Int64, microseconds: Int64) {
            self.seconds = seconds
            self.microseconds = microseconds
        }

        /// Whether one moment is earlier than the other.
        package static func < (one: Timestamp, other: Timestamp) -> Bool {
            (one.seconds, one.microseconds) < (other.seconds, other.microseconds)
        }
    }

    /// The event's name, for example `MIGRATION`.
    package let name: String
    /// The event's details; empty if the sender gave none.
    package let data: [String: JSONValue]
    /// When the event happened.
    package let timestamp: Timestamp

    /// An event.
    package init(name: String, data: [String: JSONValue], timestamp: Timestamp) {
        self.name = name
        self.data = data
        self.timestamp = timestamp
    }
}
