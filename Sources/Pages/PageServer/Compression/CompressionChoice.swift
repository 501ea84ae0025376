import Compression

/// Chooses the codec of a push by what the link and the codecs were measured to do; a value without a clock.
///
/// A lane either compresses or sends. So a byte of a page takes the time to compress it and the time to send what is
/// left of it. A codec is used if that makes the pages faster by ``margin``. The kernel goes on emptying the socket's
/// buffer while the lane compresses. The choice ignores that, so a codec moves the pages at least as fast as expected.
struct CompressionChoice: Hashable {
    /// The nanoseconds of a push between two decisions.
    static let period: UInt64 = 100_000_000
    /// The factor by which a codec must be faster than what is used now.
    static let margin = 1.1
    /// The link's rate, in bytes per nanosecond, above which codecs are not even measured.
    static let fastLink = 1.5
    /// The bytes of pages that are compressed to measure a codec.
    static let sampleBytes = 512 << 10
    /// The fewest bytes sent that measure the link.
    static let leastSent = 256 << 10
    /// The most periods between two measurements of the codecs.
    static let longestPause = 16
    /// The periods after which a link that the codec in use leaves idle is measured again.
    static let idleLimit = 32

    /// What a codec was measured to do.
    private struct Measure: Hashable {
        var before = 0
        var after = 0
        var nanoseconds: UInt64 = 0

        /// Nanoseconds for each byte of a page, over a link of `rate` bytes per nanosecond.
        func cost(over rate: Double) -> Double {
            (Double(nanoseconds) + Double(after) / rate) / Double(max(1, before))
        }
    }

    private let codecs: [Codec]
    /// What each codec did since it was last compared.
    private var measures: [Measure]
    /// The codec in use; nil if pages go as they are.
    private var used: Int?
    /// The codec that is measured; nil between two measurements.
    private var measured: Int?
    /// The link's rate in bytes per nanosecond; nil before it was measured.
    private var link: Double?
    /// The bytes sent in this period, the nanoseconds that their sends took, and those of the whole period.
    private var sent = 0
    private var sending: UInt64 = 0
    private var elapsed: UInt64 = 0
    /// The periods between two measurements of all codecs, and how many have passed.
    private var pause = 1
    private var passed = 0
    /// The periods in a row in which the codec was the limit, and not the link.
    private var idlePeriods = 0

    /// Makes a choice among codecs, which begins with pages as they are.
    init(among codecs: [Codec]) {
        self.codecs = codecs
        measures = codecs.map { _ in Measure() }
    }

    /// The codec for the next run; nil to send the run as it is.
    var next: Codec? { (measured ?? used).map { codecs[$0] } }

    /// Whether the next run measures a codec, and so must be tried.
    var isMeasuring: Bool { measured != nil }

    /// Notes a run for which ``next`` named a codec.
    ///
    /// - Parameters:
    ///   - before: bytes of the run's pages.
    ///   - after: the bytes that are sent for them.
    ///   - nanoseconds: the time that compressing took; 0 for a run that was not tried.
    mutating func noteRun(before: Int, after: Int, nanoseconds: UInt64) {
        guard let codec = measured ?? used else { return }
        measures[codec].before += before
        measures[codec].after += after
        measures[codec].nanoseconds += nanoseconds
        guard measured != nil, measures[codec].before >= CompressionChoice.sampleBytes else { return }
        measured = codec + 1 < codecs.count ? codec + 1 : nil
        if measured == nil { compareAll() }
    }

    /// Notes a send.
    ///
    /// - Parameters:
    ///   - bytes: the bytes of pages, as they were sent.
    ///   - sending: the nanoseconds that the send took, and the rest that a limit of the rate demanded after it.
    ///   - elapsed: the nanoseconds since the end of the send before.
    mutating func noteSend(bytes: Int, sending: UInt64, elapsed: UInt64) {
        guard measured == nil else { return }
        sent += bytes
        self.sending += sending
        self.elapsed += elapsed
        guard self.elapsed >= CompressionChoice.period else { return }
        if sent < CompressionChoice.leastSent {
            // A slow link is measured over a longer period. A push that finds only zeros measures nothing.
            if self.sending < self.elapsed / 2 { beginPeriod() }
            return
        }
        measureLink()
        beginPeriod()
        choose()
    }

    private mutating func beginPeriod() { (sent, sending, elapsed) = (0, 0, 0) }

    private mutating func measureLink() {
        if used == nil {
            link = Double(sent) / Double(max(1, sending))
        } else if sending >= elapsed / 4 {
            // The socket had no room for long, so the link was never idle.
            link = Double(sent) / Double(elapsed)
            idlePeriods = 0
        } else {
            idlePeriods += 1
            guard idlePeriods == CompressionChoice.idleLimit else { return }
            // Only pages as they are can show whether the link has become faster.
            link = nil
        }
    }

    private mutating func choose() {
        guard let link, link < CompressionChoice.fastLink else { return useNothing() }
        passed += 1
        if passed >= pause {
            passed = 0
            clearMeasures()
            measured = codecs.isEmpty ? nil : 0
        } else if let used, measures[used].before > 0 {
            if measures[used].cost(over: link) > 1 / link { useNothing() }
            clearMeasures()
        }
    }

    private mutating func useNothing() {
        used = nil
        idlePeriods = 0
        (pause, passed) = (1, 0)
    }

    private mutating func clearMeasures() {
        for codec in codecs.indices { measures[codec] = Measure() }
    }

    /// Compares all codecs with each other and with pages as they are.
    private mutating func compareAll() {
        guard let link else { return }
        let before = used
        var bestCost = 1 / link
        used = nil
        if let before, measures[before].cost(over: link) < bestCost {
            (used, bestCost) = (before, measures[before].cost(over: link))
        }
        for codec in codecs.indices where codec != before {
            let cost = measures[codec].cost(over: link)
            if cost * CompressionChoice.margin < bestCost { (used, bestCost) = (codec, cost) }
        }
        clearMeasures()
        // The longer the choice stays the same, the less often it costs a measurement.
        pause = used == before ? min(2 * pause, CompressionChoice.longestPause) : 2
        if used != before { idlePeriods = 0 }
    }
}
