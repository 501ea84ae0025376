import Glibc
package import LinuxSystem
import Outside
import Synchronization

/// A file that records which process ran a workload, and when, and that survives the process.
///
/// Tests of the switchover read the file. The file is mapped shared, so a store survives `kill -9`. The file consists
/// of slots of eight 64-bit words in host byte order. The first word of the first slot is the number of other slots in
/// use. Each other slot belongs to one run of one thread, and has five words in use:
///
/// | word | content |
/// |---|---|
/// | 0 | the process id |
/// | 1 | when the run began |
/// | 2 | when its newest operation began |
/// | 3 | when the run ended |
/// | 4 | the number of operations begun |
///
/// Times are nanoseconds of CLOCK_MONOTONIC, 0 before the event.
///
/// `@unchecked Sendable`: every access to the mapping is atomic.
package final class Witness: @unchecked Sendable {
    private typealias Word = Atomic<UInt64>

    private static let wordsPerSlot = 8

    private let mapping: Mapping

    /// Maps a file that exists and holds zeros, or the records of other processes.
    ///
    /// The size should be a multiple of 64 bytes: 64 for the first slot, and 64 for each run that can be recorded.
    package init(path: String) throws(SystemError) {
        mapping = try Mapping(sharingFileAt: path)
    }

    private var words: UnsafeMutablePointer<Word> { mapping.base.assumingMemoryBound(to: Word.self) }

    /// The slot of one run of one thread, which that thread alone writes.
    struct Run: Sendable {
        /// Keeps the mapping alive.
        private let witness: Witness
        private let offset: Int

        fileprivate init(_ witness: Witness, slot: Int) {
            self.witness = witness
            offset = slot * Witness.wordsPerSlot
            word(0).pointee.store(UInt64(getpid()), ordering: .relaxed)
        }

        private func word(_ index: Int) -> UnsafeMutablePointer<Word> { witness.words + offset + index }

        /// Records the beginning of the run.
        func begin() {
            word(1).pointee.store(MonotonicClock.now(), ordering: .releasing)
        }

        /// Records the beginning of an operation.
        func operate() {
            word(2).pointee.store(MonotonicClock.now(), ordering: .releasing)
            word(4).pointee.wrappingAdd(1, ordering: .releasing)
        }

        /// Records the end of the run.
        func end() {
            word(3).pointee.store(MonotonicClock.now(), ordering: .releasing)
        }
    }

    /// Takes a free slot for a run of a thread.
    ///
    /// - Throws: ``WorkloadError`` if the file has no free slot.
    func makeRun() throws(WorkloadError) -> Run {
        // Other processes write the file too, so the number may be any.
        let slots = mapping.byteCount / (Witness.wordsPerSlot * MemoryLayout<UInt64>.size)
        let taken = Untrusted<Int>(converting: words.pointee.wrappingAdd(1, ordering: .relaxed).newValue)
        guard slots > 1, let slot = taken.within(1...(slots - 1)) else {
            throw WorkloadError("the witness file is full; begin with a new one")
        }
        return Run(self, slot: slot)
    }
}
