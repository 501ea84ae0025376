/// The order in which a workload's threads touch their pages.
package enum AccessPattern: String, Codable, CaseIterable, Hashable, Sendable {
    /// All pages in order, over and over.
    case sequential
    /// Pages drawn uniformly.
    case random
    /// Pages drawn from a Zipf distribution (θ = 0.99), with a slow sweep over all pages.
    case zipf
    /// Pages that each hold the index of the next, so that no access can begin before the previous one has ended.
    case chase
    /// Gets and puts with Zipf-distributed keys in a hash table, with a slow scan over all buckets.
    case kv
}
