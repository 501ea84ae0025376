import Glibc
import Testing

@testable import Workloads

@Suite("Zipf draws")
struct ZipfTests {
    @Test("follow the expected frequency of each rank", arguments: [1, 2, 10, 1000])
    func skew(count: Int) {
        let sampler = ZipfSampler(count: count)
        var random = RandomStream(seed: 3, stream: 0)
        var drawn = [Int](repeating: 0, count: count)
        let draws = 100_000
        for _ in 0..<draws { drawn[sampler.next(&random)] += 1 }
        let whole = (1...count).reduce(0.0) { $0 + pow(Double($1), -0.99) }
        for rank in [0, 1, 4, 9, 99, 499] where rank < count {
            let expected = pow(Double(rank + 1), -0.99) / whole * Double(draws)
            // The tolerance is five standard deviations.
            #expect(abs(Double(drawn[rank]) - expected) < 5 * expected.squareRoot(), "rank \(rank)")
        }
    }

    @Test("map ranks to pages one to one, scrambled", arguments: [1, 2, 3, 5, 64, 1000, 1025])
    func permutation(count: Int) {
        let scramble = Scramble(count: count, seed: 9)
        #expect((0..<count).map { scramble($0) }.sorted() == Array(0..<count))
    }
}
