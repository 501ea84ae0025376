import ArgumentParser
import LinuxSystem
import PageFetcher
import PageProtocol

/// How a destination fetches the pages that are touched, and which pages it requests ahead.
struct FaultOptions: ParsableArguments, Encodable {
    enum Policy: String, Codable, ExpressibleByArgument {
        case none
        case faultAround = "fault-around"
        case streams
    }

    @Option(
        name: .customLong("prefetch"),
        help: ArgumentHelp(
            "Which pages to request before they are touched. none: no pages. fault-around: the pages around a fault. "
                + "streams: the pages that a thread will touch next, if its faults follow a sequence or a stride "
                + "(default: streams).",
            valueName: "none|fault-around|streams"
        )
    )
    var policy: Policy?

    @Option(
        name: .customLong("prefetch-window"),
        help: ArgumentHelp(
            "The number of 4 KiB pages in a prefetch window, 1 to 1024. fault-around: the size of the aligned window around "
                + "a fault (default: 16). streams: the longest window of a stream (default: 64).",
            valueName: "pages"
        )
    )
    var window: Int?

    @Option(
        help: ArgumentHelp(
            "The number of threads that serve faults, each over its own connection, 1 to 16 (default: one for every "
                + "four processors, at least 1 and at most 4).",
            valueName: "threads"
        )
    )
    var faultThreads: Int?

    @Flag(
        help: ArgumentHelp(
            "Let each thread of a built-in workload fetch the pages that it touches. No pages are requested ahead. Faster "
                + "with one thread; slower with many threads, because the threads take turns."
        )
    )
    var inThread = false

    /// The prefetch policy that the options select.
    var prefetch: Prefetch {
        switch policy ?? .streams {
        case .none: .none
        case .faultAround: window.map { .faultAround(window: $0) } ?? .faultAround()
        case .streams: window.map { .streams(window: $0) } ?? .streams()
        }
    }

    /// The number of threads that serve faults.
    var threads: Int {
        inThread ? 1 : faultThreads ?? FaultOptions.usualThreads
    }

    /// The number of threads that serve the faults of one memory, unless the user gives another.
    static var usualThreads: Int { min(4, max(1, Processors.online / 4)) }

    func validate() throws {
        guard !inThread || policy == nil && window == nil else {
            throw ValidationError("--in-thread requests no pages ahead; drop --prefetch and --prefetch-window")
        }
        guard faultThreads == nil || !inThread else {
            throw ValidationError("with --in-thread every thread serves its own faults; drop --fault-threads")
        }
        guard (1...Wire.maxUrgentLanes).contains(faultThreads ?? 1) else {
            throw ValidationError("--fault-threads must be 1 to \(Wire.maxUrgentLanes)")
        }
        guard let window else { return }
        guard policy != Policy.none else {
            throw ValidationError("--prefetch none has no window; drop --prefetch-window")
        }
        let windows = Prefetch.windows
        guard windows.contains(window) else {
            throw ValidationError("--prefetch-window must be \(windows.lowerBound) to \(windows.upperBound) pages")
        }
    }
}
