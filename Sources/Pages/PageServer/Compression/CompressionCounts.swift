package import Compression
import Synchronization

/// What the pushes of a source have compressed, counted by all of their threads.
final class CompressionCounts: Sendable {
    private let bytesBefore = Atomic<Int>(0)
    private let bytesAfter = Atomic<Int>(0)
    private let nanoseconds = Atomic<UInt64>(0)
    private let shrunk = Atomic<Int>(0)
    private let unshrunk = Atomic<Int>(0)
    private let skipped = Atomic<Int>(0)
    /// The codec of the latest run that has shrunk: 1 more than its index; 0 if there is none.
    private let latest = Atomic<Int>(0)

    func noteShrunk(from before: Int, to after: Int, by codec: Codec, nanoseconds: UInt64) {
        bytesBefore.add(before, ordering: .relaxed)
        bytesAfter.add(after, ordering: .relaxed)
        shrunk.add(1, ordering: .relaxed)
        self.nanoseconds.add(nanoseconds, ordering: .relaxed)
        latest.store(codec == .lz4 ? 1 : 2, ordering: .relaxed)
    }

    func noteUnshrunk(nanoseconds: UInt64) {
        unshrunk.add(1, ordering: .relaxed)
        self.nanoseconds.add(nanoseconds, ordering: .relaxed)
    }

    func noteSkipped() { skipped.add(1, ordering: .relaxed) }

    var progress: PageServer.Compressed {
        PageServer.Compressed(
            codec: [nil, .lz4, .zstd][latest.load(ordering: .relaxed)],
            bytesBefore: bytesBefore.load(ordering: .relaxed),
            bytesAfter: bytesAfter.load(ordering: .relaxed),
            processorNanoseconds: nanoseconds.load(ordering: .relaxed),
            runsShrunk: shrunk.load(ordering: .relaxed),
            runsUnshrunk: unshrunk.load(ordering: .relaxed),
            runsSkipped: skipped.load(ordering: .relaxed)
        )
    }
}

extension PageServer {
    /// What the push has compressed so far.
    package struct Compressed: Hashable, Sendable {
        /// The codec of the latest run that has shrunk; nil if none has.
        package var codec: Codec?
        /// Bytes of the pages that went compressed.
        package var bytesBefore = 0
        /// The bytes that were sent for these pages.
        package var bytesAfter = 0
        /// The processor time of compressing, also of runs that did not shrink, in nanoseconds.
        package var processorNanoseconds: UInt64 = 0
        /// Runs that went compressed.
        package var runsShrunk = 0
        /// Runs that were tried, and went as they are because they did not shrink enough.
        package var runsUnshrunk = 0
        /// Runs that were not tried, because the runs before them did not shrink.
        package var runsSkipped = 0
    }
}
