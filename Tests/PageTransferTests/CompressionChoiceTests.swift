import Compression
import Testing

@testable import PageServer

/// The choice of a codec, with a link and codecs that are numbers.
@Suite struct CompressionChoiceTests {
    /// What a codec does with the memory: bytes per nanosecond, and the share of the bytes that is left.
    private struct Content {
        var lz4 = (rate: 0.6, left: 0.55)
        var zstd = (rate: 0.3, left: 0.35)

        func of(_ codec: Codec) -> (rate: Double, left: Double) { codec == .lz4 ? lz4 : zstd }
    }

    /// Pushes runs of 256 KiB for some seconds over a link with a small buffer.
    ///
    /// - Parameter rate: the link's bytes per nanosecond.
    /// - Returns: the bytes of pages that were pushed by each codec, and as they are.
    private func push(
        _ choice: inout CompressionChoice,
        seconds: Double,
        rate: Double,
        _ content: Content = Content()
    ) -> [Codec?: Int] {
        let run = 256 << 10
        var pushed: [Codec?: Int] = [:]
        var time = 0.0
        while time < seconds * 1e9 {
            let codec = choice.next
            pushed[codec, default: 0] += run
            var (compressing, bytes) = (0.0, run)
            if let codec {
                compressing = Double(run) / content.of(codec).rate
                bytes = Int(Double(run) * content.of(codec).left)
                choice.noteRun(before: run, after: bytes, nanoseconds: UInt64(compressing))
            }
            // What is sent while the next run is compressed does not count as the time of a send.
            let sending = max(20_000, Double(bytes) / rate - compressing)
            choice.noteSend(bytes: bytes, sending: UInt64(sending), elapsed: UInt64(sending + compressing))
            time += sending + compressing
        }
        return pushed
    }

    private func choice() -> CompressionChoice { CompressionChoice(among: Codec.allCases) }

    @Test(arguments: [0.000_5, 0.012_5, 0.05])
    func `on a slow link the codec that shrinks most is used`(rate: Double) {
        var choice = choice()
        #expect(choice.next == nil)
        let pushed = push(&choice, seconds: 20, rate: rate)
        #expect(choice.next == .zstd || choice.isMeasuring)
        let all = pushed.values.reduce(0, +)
        #expect(pushed[.zstd] ?? 0 > all / 10 * 8, "\(pushed)")
    }

    @Test func `on a link that is faster than the slower codec, the faster one is used`() {
        var choice = choice()
        let pushed = push(&choice, seconds: 20, rate: 0.2, Content(zstd: (rate: 0.15, left: 0.35)))
        let all = pushed.values.reduce(0, +)
        #expect(pushed[.lz4] ?? 0 > all / 10 * 8, "\(pushed)")
    }

    @Test(arguments: [0.8, 1.2])
    func `on a fast link pages go as they are, and codecs are measured rarely`(rate: Double) {
        var choice = choice()
        let pushed = push(&choice, seconds: 20, rate: rate)
        let all = pushed.values.reduce(0, +)
        #expect(choice.next == nil)
        #expect(all - (pushed[nil] ?? 0) < all / 200, "\(pushed)")
    }

    @Test func `on a link that no codec can keep up with, none is ever measured`() {
        var choice = choice()
        #expect(push(&choice, seconds: 5, rate: 3).keys.allSatisfy { $0 == nil })
    }

    @Test func `memory that does not shrink goes as it is`() {
        var choice = choice()
        let random = Content(lz4: (rate: 2, left: 1), zstd: (rate: 0.6, left: 1))
        let pushed = push(&choice, seconds: 20, rate: 0.012_5, random)
        let all = pushed.values.reduce(0, +)
        #expect(pushed[nil] ?? 0 > all / 10 * 8, "\(pushed)")
        // The choice returns to a codec when the memory shrinks again, and leaves it when the memory does not.
        _ = push(&choice, seconds: 10, rate: 0.012_5)
        #expect(choice.next == .zstd || choice.isMeasuring)
        _ = push(&choice, seconds: 2, rate: 0.012_5, random)
        #expect(choice.next == nil || choice.isMeasuring)
    }

    @Test func `the choice follows a link that becomes faster, or slower`() {
        var choice = choice()
        _ = push(&choice, seconds: 5, rate: 0.012_5)
        #expect(choice.next == .zstd || choice.isMeasuring)
        _ = push(&choice, seconds: 10, rate: 1.2)
        #expect(choice.next == nil)
        _ = push(&choice, seconds: 10, rate: 0.012_5)
        #expect(choice.next == .zstd || choice.isMeasuring)
    }

    @Test func `a push that finds only zeros, and one without codecs, decide nothing`() {
        var zeros = choice()
        for _ in 0..<10_000 { zeros.noteSend(bytes: 0, sending: 1000, elapsed: 1_000_000) }
        #expect(zeros.next == nil)
        var none = CompressionChoice(among: [])
        _ = push(&none, seconds: 2, rate: 0.001)
        #expect(none.next == nil)
    }

    @Test func `memory that does not shrink is tried now and then`() {
        var trials = CompressionTrials()
        func tried(_ runs: Int, shrinking: Bool) -> Int {
            var count = 0
            for _ in 0..<runs where trials.tries() {
                trials.note(hasShrunk: shrinking)
                count += 1
            }
            return count
        }
        #expect(tried(100, shrinking: true) == 100)
        #expect(tried(8 + 16 * 10, shrinking: false) == 8 + 10)
        // One run that shrinks is enough to try all again.
        #expect(tried(15, shrinking: true) == 0)
        #expect(tried(101, shrinking: true) == 101)
    }
}
