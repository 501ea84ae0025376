import LinuxSystem

/// Which pages a destination asks for before anybody touches them. Windows are in pages of 4096 bytes.
public enum Prefetch: Hashable, Sendable {
    /// None.
    case none
    /// Those of the aligned window that a fault lies in; usually of 64 KiB, as in the kernel's own fault-around.
    case faultAround(window: Int = 16)
    /// Those that a thread's faults, in order or in strides, will come to; at most so many at once.
    case streams(window: Int = 64)

    /// The windows that may be asked for: at most 4 MiB.
    public static let windows = 1...1024

    /// The policy that decides so, for memory in these ranges.
    func makePolicy(for ranges: [PageRange]) -> any LooksAhead {
        func bounds(_ window: Int) -> [PrefetchBounds] { ranges.map { PrefetchBounds($0, window: window) } }
        return switch self {
        case .none: SharedPolicy(NoPrefetch())
        case .faultAround(let window): SharedPolicy(FaultAround(bounds(window)))
        case .streams(let window): SharedPolicy(Streams(bounds(window)))
        }
    }
}
