/// Something that a server tells all its clients unasked.
public struct QMPEvent: Sendable, Hashable {
    /// When it happened, by the sender's wall clock.
    public struct Timestamp: Sendable, Hashable, Comparable {
        /// Since 1970.
        public let seconds: Int64
        /// 0 ..< 1 000 000.
        public let microseconds: Int64

        /// A moment.
        public init(seconds: Int64, microseconds: Int64) {
            self.seconds = seconds
            self.microseconds = microseconds
        }

        /// Whether one moment is earlier than the other.
        public static func < (one: Timestamp, other: Timestamp) -> Bool {
            (one.seconds, one.microseconds) < (other.seconds, other.microseconds)
        }
    }

    /// What happened, for example `MIGRATION`.
    public let name: String
    /// Details; empty if the sender gave none.
    public let data: [String: JSONValue]
    /// When it happened.
    public let timestamp: Timestamp

    /// An event.
    public init(name: String, data: [String: JSONValue], timestamp: Timestamp) {
        self.name = name
        self.data = data
        self.timestamp = timestamp
    }
}
