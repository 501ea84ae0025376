import Compression
import LinuxSystem
import PageProtocol

/// Compresses the runs of one pushing thread.
///
/// All buffers are allocated at the beginning; libzstd allocates its tables with the first run. The compressed bytes of a batch stay in place until ``empty()``.
struct RunCompressor: ~Copyable {
    /// A run goes compressed only if it shrinks to at most 7/8 of its bytes.
    private static let (worthOf, worthIn) = (7, 8)

    private let counts: CompressionCounts
    private let output: StagingBuffer
    private let compressor: Compressor
    private var used = 0
    private var trials = CompressionTrials()
    /// The codec of every run; nil if ``choice`` decides.
    private let fixed: Codec?
    private var choice: CompressionChoice

    /// Makes a compressor for at least one codec.
    ///
    /// - Parameters:
    ///   - codecs: the codecs that may be used; without `chooses`, only the first.
    ///   - chooses: whether to measure which codec pays, if any.
    ///   - batch: bytes of pages that are gathered before a send, which the last run may exceed by its own length.
    ///   - counts: what all threads have compressed.
    init(_ codecs: [Codec], chooses: Bool, batch: Int, counts: CompressionCounts) {
        self.counts = counts
        let longest = max(batch, Int(Wire.maxCompressedRunBytes))
        output = StagingBuffer(byteCount: (batch + longest) * RunCompressor.worthOf / RunCompressor.worthIn)
        compressor = Compressor(codecs)
        fixed = chooses ? nil : codecs.first
        choice = CompressionChoice(among: codecs)
    }

    /// Compresses a run, if that is worth trying.
    ///
    /// - Parameters:
    ///   - run: the run.
    ///   - bytes: the run's pages.
    /// - Returns: the frame and the bytes that follow it; nil if the run is to be sent as it is.
    mutating func compress(
        _ run: PageRun,
        _ bytes: UnsafeRawBufferPointer
    ) -> (frame: LaneFrame, body: UnsafeMutableRawPointer)? {
        guard bytes.count <= Int(Wire.maxCompressedRunBytes), let codec = fixed ?? choice.next else { return nil }
        guard choice.isMeasuring || trials.tries() else {
            counts.noteSkipped()
            choice.noteRun(before: bytes.count, after: bytes.count, nanoseconds: 0)
            return nil
        }
        let most = bytes.count / RunCompressor.worthIn * RunCompressor.worthOf
        let room = UnsafeMutableRawBufferPointer(rebasing: output.bytes[used..<used + most])
        let (begin, beginUsed) = (MonotonicClock.now(), ThreadClock.now())
        let count = compressor.compress(bytes, by: codec, into: room)
        let (taken, takenUsed) = (MonotonicClock.now() - begin, ThreadClock.now() - beginUsed)
        trials.note(hasShrunk: count != nil)
        choice.noteRun(before: bytes.count, after: count ?? bytes.count, nanoseconds: taken)
        guard let count, let body = room.baseAddress else {
            counts.noteUnshrunk(nanoseconds: takenUsed)
            return nil
        }
        counts.noteShrunk(from: bytes.count, to: count, by: codec, nanoseconds: takenUsed)
        used += count
        return (.compressed(run, by: codec, byteCount: count), body)
    }

    /// Frees the compressed bytes, after all of them were sent.
    mutating func empty() { used = 0 }

    /// Notes a send, by which the choice of a codec learns the rate of the link.
    mutating func noteSend(bytes: Int, sending: UInt64, elapsed: UInt64) {
        guard fixed == nil else { return }
        choice.noteSend(bytes: bytes, sending: sending, elapsed: elapsed)
    }
}
