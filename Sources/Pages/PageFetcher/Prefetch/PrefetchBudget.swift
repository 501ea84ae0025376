/// The number of pages to prefetch at once, which shrinks to 0 if prefetched pages are not used.
///
/// An unused page delays a fault by the time its bytes take. A used page saves a fault, which costs several times as
/// much. So the window halves when less than a quarter of the pages was used, and doubles when at least half was. At a
/// window of 0 the budget rests: the policy still watches, at no cost, which pages would have been used. The budget
/// opens again when at least half of them would have been, after a rest that doubles each time the budget closes again
/// soon.
struct PrefetchBudget: Hashable {
    /// The longest rest, counted in judgements.
    private static let longestRest = 16

    /// The pages to request at once; 0 at rest.
    private(set) var window: Int
    private let longest: Int
    private let least: Int
    /// The number of pages that one judgement needs.
    private let sample: Int

    private var used = 0
    private var seen = 0
    /// The number of judgements to wait before the budget may open again.
    private var rest = 0
    private var nextRest = 1

    /// Makes a budget that begins with its longest window.
    ///
    /// - Parameters:
    ///   - longest: the longest window, in pages.
    ///   - least: the shortest window; below it the window becomes 0.
    ///   - sample: the number of pages with known use that one judgement needs.
    init(longest: Int, least: Int, sample: Int) {
        window = longest
        self.longest = longest
        self.least = min(longest, least)
        self.sample = sample
    }

    /// The window to request, or, at rest, the window to watch.
    @inline(__always)
    var watched: Int { window == 0 ? least : window }

    /// Reports pages that were requested or watched, and how many of them were used.
    mutating func settle(_ pages: Int, used: Int) {
        seen += pages
        self.used += used
        guard seen >= sample else { return }
        judge()
        seen = 0
        self.used = 0
    }

    private mutating func judge() {
        rest = max(0, rest - 1)
        if used * 4 < seen {
            if window > least {
                window = max(least, window / 2)
            } else if window > 0 {
                window = 0
                rest = nextRest
                nextRest = min(PrefetchBudget.longestRest, nextRest * 2)
            }
        } else if used * 2 >= seen {
            if window == 0 {
                if rest == 0 { window = least }
            } else if window < longest {
                window = min(longest, window * 2)
            } else {
                // The longest window has lasted, so the next rest is short again.
                nextRest = 1
            }
        }
    }
}
