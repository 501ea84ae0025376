import Outside
import Testing

@Suite("A number from outside")
struct UntrustedTests {
    @Test("can be read only inside its bounds")
    func bounds() {
        #expect(Untrusted(7).within(0...7) == 7)
        #expect(Untrusted(8).within(0...7) == nil)
        #expect(Untrusted(-1).within(0...7) == nil)
        #expect(Untrusted<UInt8>(255).within(0...255) == 255)
    }

    @Test("remembers that one step has overflowed, whatever follows")
    func overflow() {
        #expect((Untrusted(Int.max) + 1).within(Int.min...Int.max) == nil)
        #expect((Untrusted(Int.max) + 1 - 5).within(Int.min...Int.max) == nil)
        #expect((Untrusted(Int.min) - 1).within(Int.min...Int.max) == nil)
        #expect((Untrusted(UInt64.max) * 2).within(0...UInt64.max) == nil)
        #expect((Untrusted(Int.min) / Untrusted(-1)).within(Int.min...Int.max) == nil)
        #expect((Untrusted(1) / 0).within(Int.min...Int.max) == nil)
        #expect((Untrusted(2) * 3 + 1).within(0...7) == 7)
    }

    @Test("is converted exactly, or lies outside all bounds", arguments: [-1.0, 1e300, .nan, .infinity, -.infinity])
    func conversions(number: Double) {
        #expect(Untrusted<UInt32>(truncating: number).within(0...UInt32.max) == nil)
        #expect(Untrusted<UInt8>(converting: 256).within(0...255) == nil)
        #expect(Untrusted<UInt8>(converting: -1).within(0...255) == nil)
        #expect(Untrusted<Int>(truncating: 7.9).within(0...7) == 7)
    }

    @Test("is clamped to the nearest bound, and to the upper one after an overflow")
    func clamping() {
        #expect(Untrusted<Int>(-5).clamped(to: 0...9) == 0)
        #expect(Untrusted<Int>(50).clamped(to: 0...9) == 9)
        #expect((Untrusted(Int.max) + 1).clamped(to: 0...9) == 9)
    }

    @Test("describes itself")
    func description() {
        #expect("\(Untrusted<Int>(-5))" == "-5")
        #expect("\(Untrusted(UInt64.max) + 1)" == "a number beyond 64 bits")
    }
}
