import ArgumentParser
import DestinationAgent
import LinuxSystem
import PageProtocol

/// How a destination has pages that are touched, and which it asks for before that.
struct FaultOptions: ParsableArguments {
    enum Policy: String, ExpressibleByArgument {
        case none
        case faultAround = "fault-around"
        case streams
    }

    @Option(
        name: .customLong("prefetch"),
        help: ArgumentHelp(
            "Which pages to ask for before they are touched: none, those around a fault, or those that a thread's "
                + "faults, in order or in strides, will come to (default: streams).",
            valueName: "none|fault-around|streams"
        )
    )
    var policy: Policy?

    @Option(
        name: .customLong("prefetch-window"),
        help: ArgumentHelp(
            "The most pages to ask for at once, 1 to 1024: of fault-around the aligned window that holds the fault "
                + "(default: 16), of streams the longest window (default: 64).",
            valueName: "pages"
        )
    )
    var window: Int?

    @Option(
        help: ArgumentHelp(
            "Threads that serve faults, each over a connection of its own, 1 to 16 (default: one for every four "
                + "processors, at least 1 and at most 4).",
            valueName: "threads"
        )
    )
    var faultThreads: Int?

    @Flag(
        help: ArgumentHelp(
            "Let each thread of a built-in workload fetch the pages that it touches by itself, with nothing asked for "
                + "ahead: quicker for one thread, slower for many, which take turns."
        )
    )
    var inThread = false

    /// What the options say.
    var prefetch: Prefetch {
        switch policy ?? .streams {
        case .none: .none
        case .faultAround: window.map { .faultAround(window: $0) } ?? .faultAround()
        case .streams: window.map { .streams(window: $0) } ?? .streams()
        }
    }

    /// How many threads serve faults.
    var threads: Int {
        inThread ? 1 : faultThreads ?? min(4, max(1, Processors.online / 4))
    }

    /// The same options as the arguments of another command.
    var arguments: [String] {
        var arguments: [String] = []
        if let policy { arguments += ["--prefetch", policy.rawValue] }
        if let window { arguments += ["--prefetch-window", "\(window)"] }
        if let faultThreads { arguments += ["--fault-threads", "\(faultThreads)"] }
        if inThread { arguments.append("--in-thread") }
        return arguments
    }

    func validate() throws {
        guard !inThread || policy == nil && window == nil else {
            throw ValidationError("with --in-thread nothing is asked for ahead; drop --prefetch and --prefetch-window")
        }
        guard faultThreads == nil || !inThread else {
            throw ValidationError("with --in-thread no thread serves the faults of others; drop --fault-threads")
        }
        guard (1...Wire.maxUrgentLanes).contains(faultThreads ?? 1) else {
            throw ValidationError("--fault-threads is 1 to \(Wire.maxUrgentLanes)")
        }
        guard let window else { return }
        guard policy != Policy.none else {
            throw ValidationError("--prefetch none has no window; drop --prefetch-window")
        }
        let windows = Prefetch.windows
        guard windows.contains(window) else {
            throw ValidationError("--prefetch-window is \(windows.lowerBound) to \(windows.upperBound) pages")
        }
    }
}
