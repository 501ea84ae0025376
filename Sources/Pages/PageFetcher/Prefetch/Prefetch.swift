import LinuxSystem

/// The policy by which a destination requests pages before they are touched.
///
/// Windows are in pages of 4096 bytes.
package enum Prefetch: Hashable, Sendable {
    /// No pages are requested ahead.
    case none
    /// The pages of the aligned window around a fault; by default 64 KiB, like the kernel's own fault-around.
    case faultAround(window: Int = 16)
    /// The next pages of each sequential or strided stream of faults; at most `window` pages at once.
    case streams(window: Int = 64)
    /// The next pages of streams as in ``streams(window:)``, and the rest of each aligned block of 64 KiB once a quarter
    /// of its pages has raised faults.
    ///
    /// For memory that no push brings: a fault is its only other way to arrive.
    case streamsAndBlocks

    /// The valid windows: up to 4 MiB.
    package static let windows = 1...1024

    /// Makes the policy for memory in these ranges.
    func makePolicy(for ranges: [PageRange]) -> any LooksAhead {
        func bounds(_ window: Int) -> [PrefetchBounds] { ranges.map { PrefetchBounds($0, window: window) } }
        return switch self {
        case .none: SharedPolicy(NoPrefetch())
        case .faultAround(let window): SharedPolicy(FaultAround(bounds(window)))
        case .streams(let window): SharedPolicy(StridePrefetch(bounds(window)))
        case .streamsAndBlocks:
            SharedPolicy(BlockPrefetch(streams: bounds(64), blocks: bounds(BlockPrefetch.blockPages)))
        }
    }
}
