import Glibc

/// Draws ranks 0, 1, 2… with a probability that falls as 1 / (rank + 1)^θ, in constant time and without a table.
///
/// The method is rejection-inversion: W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from
/// monotone discrete distributions", ACM TOMACS 6 (1996). A draw takes 1.1 tries on average.
struct ZipfSampler: Sendable {
    private let count: Double
    private let exponent: Double
    private let integralOfOne: Double
    private let integralOfCount: Double
    private let shortcut: Double

    /// Makes a sampler of `count` ranks, at least one.
    init(count: Int, exponent: Double = 0.99) {
        precondition(count > 0)
        self.count = Double(count)
        self.exponent = exponent
        integralOfOne = ZipfSampler.integral(1.5, exponent) - 1
        integralOfCount = ZipfSampler.integral(Double(count) + 0.5, exponent)
        let two = ZipfSampler.integral(2.5, exponent) - ZipfSampler.density(2, exponent)
        shortcut = 2 - ZipfSampler.inverse(two, exponent)
    }

    @inline(__always)
    func next(_ random: inout RandomStream) -> Int {
        while true {
            let draw = integralOfCount + random.nextFraction() * (integralOfOne - integralOfCount)
            let place = ZipfSampler.inverse(draw, exponent)
            let rank = min(max((place + 0.5).rounded(.down), 1), count)
            let accepted =
                rank - place <= shortcut
                || draw >= ZipfSampler.integral(rank + 0.5, exponent) - ZipfSampler.density(rank, exponent)
            if accepted { return Int(rank) - 1 }
        }
    }

    private static func density(_ x: Double, _ exponent: Double) -> Double {
        exp(-exponent * log(x))
    }

    private static func integral(_ x: Double, _ exponent: Double) -> Double {
        let logarithm = log(x)
        let scaled = (1 - exponent) * logarithm
        // expm1(x) / x, or the beginning of its series if x is nearly 0.
        let ratio = abs(scaled) > 1e-8 ? expm1(scaled) / scaled : 1 + scaled / 2
        return ratio * logarithm
    }

    private static func inverse(_ x: Double, _ exponent: Double) -> Double {
        let scaled = max(x * (1 - exponent), -1)
        // log1p(x) / x, or the beginning of its series if x is nearly 0.
        let ratio = abs(scaled) > 1e-8 ? log1p(scaled) / scaled : 1 - scaled / 2
        return exp(ratio * x)
    }
}
