import Compression
import LinuxSystem
import PageFetcher

/// Pushes that are compressed.
extension Bench {
    /// The most pages that move over the slow link in one round: 16 MiB, which take more than a second as they are.
    private static let slowPages = 4096

    /// Compares compressed pushes over a link of 100 Mbit/s with pushes of pages as they are.
    func compressedPushes() throws -> [Comparison] {
        let cases: [(name: String, content: BenchSetup.Content, compression: PushCompression)] = [
            ("push-compressed-text", .text, .zstd),
            ("push-compressed-text-lz4", .text, .lz4),
            ("push-compressed-text-auto", .text, .auto),
            ("push-compressed-binary", .binary, .zstd),
            ("push-compressed-random", .random, .zstd),
            ("push-compressed-random-auto", .random, .auto),
        ]
        return try cases.map { one in
            let rounds = try alternate(one.name, one.compression, .none) { compression in
                var setup = BenchSetup(service: .agent, pageCount: min(size.pushedPages, Bench.slowPages))
                setup.content = one.content
                setup.compression = compression
                return try pushAlone(setup, over: RateRelay.slowRate)
            }
            return Comparison(one.name, against: "the same push without compression", rounds)
        }
    }

    /// Compares a push that decides by itself whether to compress with one that does not, over the fast link.
    func autoPush() throws -> Comparison {
        let rounds = try alternate("push-auto", PushCompression.auto, .none) { compression in
            var setup = BenchSetup(service: .agent, pageCount: size.pushedPages)
            setup.compression = compression
            return try pushAlone(setup)
        }
        return Comparison("push-auto", against: "push", rounds)
    }
}
