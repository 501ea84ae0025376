/// How many pages may be asked for at once: fewer where they turn out not to be used, down to none.
///
/// A page in vain costs its bytes ahead of somebody's fault; a page that is used spares a fault, which costs several
/// times that. So the window halves when less than a quarter was used, and doubles when at least half was. At rest the
/// policy goes on to watch what would have been used, which costs nothing: the budget opens again when that is as good,
/// after a rest that doubles each time it did not last.
struct PrefetchBudget: Hashable {
    /// The longest rest, in judgements.
    private static let longestRest = 16

    /// The pages that may be asked for at once; 0 at rest.
    private(set) var window: Int
    private let longest: Int
    private let least: Int
    /// Pages that a judgement takes.
    private let sample: Int

    private var used = 0
    private var seen = 0
    /// Judgements to sit out before it may open again.
    private var rest = 0
    private var nextRest = 1

    /// Makes one that begins with its longest window.
    ///
    /// - Parameters:
    ///   - longest: the longest window.
    ///   - least: the window below which nothing is asked for at all.
    ///   - sample: how many pages must be known to have been used or not, for the window to change.
    init(longest: Int, least: Int, sample: Int) {
        window = longest
        self.longest = longest
        self.least = min(longest, least)
        self.sample = sample
    }

    /// The window to ask for; at rest, the one to watch.
    @inline(__always)
    var watched: Int { window == 0 ? least : window }

    /// Tells of pages that were asked for, or watched: how many, and how many of them were used.
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
                // What is good at full length has lasted.
                nextRest = 1
            }
        }
    }
}
