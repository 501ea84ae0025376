import Guest

/// The state of every thread of a workload, saved and loaded while no thread runs.
final class ProcessorDevice: Device {
    let name = "cpu"
    private let threads: [WorkloadThread]

    init(_ threads: [WorkloadThread]) {
        self.threads = threads
    }

    /// The size of the state, in bytes.
    static func stateBytes(threads: Int) -> Int { 4 + 24 * threads }

    func save() -> [UInt8] {
        var writer = StateWriter()
        writer.append(UInt32(threads.count))
        for thread in threads {
            writer.append(thread.state.random.state)
            writer.append(thread.state.cursor)
            writer.append(thread.state.operations)
        }
        return writer.bytes
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        let count = try reader.nextBits(UInt32.self)
        guard count == threads.count else {
            throw reader.malformed("the state has \(count) threads, and the workload has \(threads.count)")
        }
        var states: [ThreadState] = []
        for thread in threads {
            var state = ThreadState(random: RandomStream(state: try reader.nextBits()))
            let pages = UInt64(thread.pageCount)
            state.cursor = try reader.next(in: 0...(pages - 1)) { page in
                "thread \(thread.index) is at page \(page) of \(pages)"
            }
            state.operations = try reader.nextCount(of: "operations of thread \(thread.index)")
            states.append(state)
        }
        try reader.finish()
        for (thread, state) in zip(threads, states) { thread.state = state }
    }
}
