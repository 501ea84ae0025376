import Glibc
import LinuxSystem

/// The history of the workload, which the processes store in a shared mapping before each operation.
final class WitnessFile {
    /// One run of one thread of the workload.
    struct Run {
        let pid: pid_t
        let begin: UInt64
        let newestOperation: UInt64
        /// When the run ended; 0 if it did not end by itself.
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

    /// Every run with at least one operation.
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

    /// The number of operations of a process.
    func operations(of pid: pid_t) -> UInt64 {
        runs.filter { $0.pid == pid }.reduce(0) { $0 + $1.operations }
    }

    /// The processes that executed, in the order of their runs; several runs in a row of one process count once.
    var order: [pid_t] {
        runs.sorted { $0.begin < $1.begin }.map(\.pid).reduce(into: []) { order, pid in
            if order.last != pid { order.append(pid) }
        }
    }

    /// A process that executed again after a later process of the chain, and thus ran stale memory; nil if none did.
    ///
    /// - Parameter chain: the processes in the order in which the workload moves to them; not all need have run.
    func returned(in chain: [pid_t]) -> pid_t? {
        var rest = chain[...]
        for pid in order {
            guard let place = rest.firstIndex(of: pid) else { return pid }
            rest = rest[place...]
        }
        return nil
    }

    /// Two runs of different processes that overlap in time; nil if no two runs do.
    ///
    /// - Parameter deaths: when processes died; the run of a killed process ends then.
    func overlap(deaths: [pid_t: UInt64]) -> (Run, Run)? {
        let all = runs.sorted { $0.begin < $1.begin }
        for (index, one) in all.enumerated() {
            let end = one.end != 0 ? one.end : max(deaths[one.pid] ?? .max, one.newestOperation)
            for other in all[(index + 1)...] where other.pid != one.pid && other.begin < end { return (one, other) }
        }
        return nil
    }
}
