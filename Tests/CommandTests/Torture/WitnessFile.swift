import Glibc
import LinuxSystem

/// What happened to the workload, as the processes stored it in a shared mapping before each operation.
final class WitnessFile {
    /// One run of one thread of the workload.
    struct Run {
        let pid: pid_t
        let begin: UInt64
        let newestOperation: UInt64
        /// 0 for a run that has not ended by itself.
        let end: UInt64
        let operations: UInt64
    }

    private static let byteCount = 64 << 10

    let path: String
    private let mapping: Mapping

    init(path: String) throws {
        self.path = path
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0, ftruncate(descriptor, off_t(WitnessFile.byteCount)) == 0 else {
            throw TestFailure("cannot make \(path): errno \(errno)")
        }
        close(descriptor)
        mapping = try Mapping(sharingFileAt: path)
    }

    private func word(_ index: Int) -> UInt64 {
        mapping.base.load(fromByteOffset: index * 8, as: UInt64.self)
    }

    /// Every run in which anything was done.
    var runs: [Run] {
        (0..<Int(word(0))).map { slot in
            let first = (slot + 1) * 8
            return Run(
                pid: pid_t(word(first)),
                begin: word(first + 1),
                newestOperation: word(first + 2),
                end: word(first + 3),
                operations: word(first + 4)
            )
        }.filter { $0.operations > 0 }
    }

    /// How much a process has done.
    func operations(of pid: pid_t) -> UInt64 {
        runs.filter { $0.pid == pid }.reduce(0) { $0 + $1.operations }
    }

    /// The processes that executed, in the order of their runs; one that ran several times in a row is there once.
    var order: [pid_t] {
        runs.sorted { $0.begin < $1.begin }.map(\.pid).reduce(into: []) { order, pid in
            if order.last != pid { order.append(pid) }
        }
    }

    /// A process that executed where others of the chain had come since: memory that is stale ran.
    ///
    /// - Parameter chain: the processes in the order in which the workload was to come to them; not all need have run.
    func returned(in chain: [pid_t]) -> pid_t? {
        var rest = chain[...]
        for pid in order {
            guard let place = rest.firstIndex(of: pid) else { return pid }
            rest = rest[place...]
        }
        return nil
    }

    /// Two runs of different processes of which one began before the other had ended.
    ///
    /// - Parameter deaths: when processes were gone; the run of one that was killed ends then.
    func overlap(deaths: [pid_t: UInt64]) -> (Run, Run)? {
        let all = runs.sorted { $0.begin < $1.begin }
        for (index, one) in all.enumerated() {
            let end = one.end != 0 ? one.end : max(deaths[one.pid] ?? .max, one.newestOperation)
            for other in all[(index + 1)...] where other.pid != one.pid && other.begin < end { return (one, other) }
        }
        return nil
    }
}
