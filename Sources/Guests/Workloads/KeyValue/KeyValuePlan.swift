/// The number of keys in a table, and the check that they fit.
struct KeyValuePlan: Sendable {
    /// The share of the room for entries that may be used; every bucket that overflows costs a search one more page.
    private static let fullest = 0.7

    /// The number of keys: lines of a file, or made-up keys, numbered from 0.
    let keyCount: Int
    /// Whether the keys are made up.
    let isSynthetic: Bool
    private let threadCount: Int

    init(_ configuration: WorkloadConfiguration) {
        threadCount = configuration.threads
        isSynthetic = configuration.load == nil
        if let load = configuration.load {
            keyCount = load.lineCount
        } else {
            let entry = KeyValueEntry.size(valueLength: KeyValueEntry.syntheticLength)
            let perPage = (configuration.pageSize - PageFormat.headerSize) / entry
            keyCount = threadCount * (configuration.pageCount / threadCount * perPage * 6 / 10)
        }
    }

    /// The number of a thread's keys, which are those equal to the thread's number modulo the thread count.
    func keyCount(ofThread thread: Int) -> Int {
        (keyCount - thread + threadCount - 1) / threadCount
    }

    /// Checks that every thread's lines fit into its pages.
    ///
    /// - Throws: ``WorkloadError`` that says how much memory would suffice.
    static func check(_ lines: FileLines, fit memory: WorkloadMemory) throws(WorkloadError) {
        var bytes = [Int](repeating: 0, count: memory.threadCount)
        for line in 0..<lines.count {
            bytes[line % memory.threadCount] += lines.tableBytes(ofLine: line)
        }
        let pageRoom = Double(memory.format.pageSize - PageFormat.headerSize) * fullest
        for (thread, bytes) in bytes.enumerated() {
            let needed = Int((Double(bytes) / pageRoom).rounded(.up))
            guard needed > memory.pageCount(ofThread: thread) else { continue }
            // The other threads probably need about as much; one page in 16 is the margin.
            let total = (needed + needed / 16 + 1) * memory.threadCount * memory.format.pageSize
            throw WorkloadError(
                "cannot load \(lines.path): its \(lines.count) lines do not fit into "
                    + "\(memory.pageCount * memory.format.pageSize) bytes of memory; "
                    + "give at least \((total + 1 << 20 - 1) >> 20) MiB"
            )
        }
    }
}
