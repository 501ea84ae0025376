/// How much a table is to hold, and whether it fits.
struct KeyValuePlan: Sendable {
    /// Of the room for entries, at most this part is used: a bucket that overflows costs every search one more page.
    private static let fullest = 0.7

    /// Keys in the table, numbered from 0: the lines, or made-up ones.
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

    /// How many keys a thread has: the keys of its number modulo the thread count.
    func keyCount(ofThread thread: Int) -> Int {
        (keyCount - thread + threadCount - 1) / threadCount
    }

    /// Checks that every thread's lines fit into its pages.
    ///
    /// - Throws: ``WorkloadError`` that says how much memory would do.
    static func check(_ lines: FileLines, fit memory: WorkloadMemory) throws(WorkloadError) {
        var bytes = [Int](repeating: 0, count: memory.threadCount)
        for line in 0..<lines.count {
            bytes[line % memory.threadCount] += lines.tableBytes(ofLine: line)
        }
        let pageRoom = Double(memory.format.pageSize - PageFormat.headerSize) * fullest
        for (thread, bytes) in bytes.enumerated() {
            let needed = Int((Double(bytes) / pageRoom).rounded(.up))
            guard needed > memory.pageCount(ofThread: thread) else { continue }
            // An even spread over the threads is likely for more memory too; one page in 16 makes up for the rest.
            let total = (needed + needed / 16 + 1) * memory.threadCount * memory.format.pageSize
            throw WorkloadError(
                "cannot load \(lines.path): its \(lines.count) lines do not fit into "
                    + "\(memory.pageCount * memory.format.pageSize) bytes of memory; "
                    + "give at least \((total + 1 << 20 - 1) >> 20) MiB"
            )
        }
    }
}
