/// In which order a workload's threads touch their pages.
public enum AccessPattern: String, Codable, CaseIterable, Hashable, Sendable {
    /// Every page after the one before it, round and round.
    case sequential
    /// Uniform draws.
    case random
    /// A few pages often and most of them seldom (θ = 0.99), and a slow sweep over all of them.
    case zipf
    /// Each page tells which one is next, so that no access can begin before the last one ended.
    case chase
    /// A hash table in the pages: get and put with zipf keys, and a slow scan over all buckets.
    case kv
}
