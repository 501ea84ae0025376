import Glibc
public import LinuxSystem
import Outside
import Synchronization

/// A file that tells from outside which process worked on a workload, and when, whatever becomes of that process.
///
/// For tests of the switchover. The file is mapped shared, so what is stored in it survives kill -9. It consists of
/// slots of eight 64-bit words in host byte order. The first word of the first slot counts the other slots that are in
/// use. Each of those belongs to one run of one thread: the process id; when the run began, its newest operation began
/// and the run ended, in nanoseconds of CLOCK_MONOTONIC (0: not yet); and the number of operations begun.
///
/// `@unchecked Sendable`: all of the mapping is used as atomics.
public final class Witness: @unchecked Sendable {
    private typealias Word = Atomic<UInt64>

    private static let wordsPerSlot = 8

    private let mapping: Mapping

    /// Maps the file, which exists and holds zeros or what other processes have written.
    public init(path: String) throws(SystemError) {
        mapping = try Mapping(sharingFileAt: path)
    }

    private var words: UnsafeMutablePointer<Word> { mapping.base.assumingMemoryBound(to: Word.self) }

    /// One run of one thread, to be told of by that thread.
    struct Run: Sendable {
        /// Keeps the mapping.
        private let witness: Witness
        private let offset: Int

        fileprivate init(_ witness: Witness, slot: Int) {
            self.witness = witness
            offset = slot * Witness.wordsPerSlot
            word(0).pointee.store(UInt64(getpid()), ordering: .relaxed)
        }

        private func word(_ index: Int) -> UnsafeMutablePointer<Word> { witness.words + offset + index }

        /// Says that the run begins.
        func begin() {
            word(1).pointee.store(MonotonicClock.now(), ordering: .releasing)
        }

        /// Says that the next operation begins.
        func operate() {
            word(2).pointee.store(MonotonicClock.now(), ordering: .releasing)
            word(4).pointee.wrappingAdd(1, ordering: .releasing)
        }

        /// Says that the run has ended.
        func end() {
            word(3).pointee.store(MonotonicClock.now(), ordering: .releasing)
        }
    }

    /// Takes a slot for a thread that is to run.
    ///
    /// - Throws: ``WorkloadError`` when the file has no slot left.
    func makeRun() throws(WorkloadError) -> Run {
        // The file is another's too, and may say any number.
        let slots = mapping.byteCount / (Witness.wordsPerSlot * MemoryLayout<UInt64>.size)
        let taken = Untrusted<Int>(converting: words.pointee.wrappingAdd(1, ordering: .relaxed).newValue)
        guard slots > 1, let slot = taken.within(1...(slots - 1)) else {
            throw WorkloadError("the witness file is full; begin with a new one")
        }
        return Run(self, slot: slot)
    }
}
