import PageProtocol
import Testing

@Suite struct RegionShapeTests {
    private func shape(
        _ name: String = "ram",
        at guestAddress: UInt64 = 0,
        pageSize: UInt32 = 4096,
        pageCount: UInt64 = 16
    ) -> RegionShape {
        RegionShape(name: name, guestAddress: guestAddress, pageSize: pageSize, pageCount: pageCount)
    }

    /// The announcement's payload, encoded without checks.
    private func payload(_ shapes: [RegionShape]) -> [UInt8] {
        shapes.reduce(into: text("demo") + bytes(UInt32(0)) + bytes(UInt16(shapes.count))) {
            $0 += text($1.name) + bytes($1.guestAddress) + bytes($1.pageSize) + bytes($1.pageCount)
        }
    }

    /// Checks that the validation, the table, the encoder and the decoder refuse the shapes with this error.
    private func expectRefused(_ shapes: [RegionShape], _ error: ProtocolError) {
        #expect(throws: error) { try RegionShape.validate(shapes) }
        #expect(throws: error) { try RegionTable(shapes) }
        let guest = GuestAnnouncement(kind: "demo", configuration: [], regions: shapes)
        #expect(throws: error) { try guest.validate() }
        #expect(throws: error) { try ControlMessage.regions(guest: guest).encode() }
        if !shapes.isEmpty { #expect(throws: error) { try decodeControl(.regions, payload(shapes)) } }
    }

    @Test func aGuestHasOneTo64Regions() {
        let many = (0..<65).map { shape(String($0), at: UInt64($0) << 20) }
        expectRefused([], .outOfBounds(frame: .regions, field: "region count", found: 0, allowed: 1...64))
        expectRefused(many, .outOfBounds(frame: .regions, field: "region count", found: 65, allowed: 1...64))
        #expect(throws: Never.self) { try RegionShape.validate(Array(many.dropLast())) }
    }

    @Test(arguments: [UInt32(0), 1, 2048, 4095, 4097, 12288, 1 << 31])
    func aPageSizeIsAPowerOfTwoInItsBounds(_ pageSize: UInt32) {
        expectRefused([shape(pageSize: pageSize)], .pageSize(region: "ram", found: pageSize))
    }

    @Test func aRegionHasAtLeastOnePage() {
        expectRefused(
            [shape(), shape("empty", at: 1 << 20, pageCount: 0)],
            .outOfBounds(frame: .regions, field: "page count of region \"empty\"", found: 0, allowed: 1...(1 << 34))
        )
    }

    @Test func aRegionsNameHasOneTo64BytesAndIsUsedOnce() {
        for count in [0, 65] {
            expectRefused(
                [shape(Samples.name(count))],
                .outOfBounds(frame: .regions, field: "length of region name", found: UInt64(count), allowed: 1...64)
            )
        }
        expectRefused([shape(), shape(at: 1 << 20)], .duplicateName(frame: .regions, name: "ram"))
    }

    @Test func theMemoryIsAtMostTwoToThe46() {
        #expect(throws: Never.self) { try RegionShape.validate([shape(pageCount: 1 << 34)]) }
        expectRefused([shape(pageCount: (1 << 34) + 1)], .memoryTooLarge(region: "ram"))
        expectRefused([shape(pageCount: 1 << 52)], .memoryTooLarge(region: "ram"))
        expectRefused([shape(pageCount: .max)], .memoryTooLarge(region: "ram"))
        expectRefused(
            [shape(pageCount: 1 << 34), shape("more", at: 1 << 50, pageCount: 1)],
            .memoryTooLarge(region: "more")
        )
    }

    @Test func aRegionEndsInside64Bits() {
        let last = UInt64.max - 16 * 4096
        #expect(throws: Never.self) { try RegionShape.validate([shape(at: last)]) }
        expectRefused([shape(at: last + 1)], .regionOverflow(region: "ram", guestAddress: last + 1))
    }

    @Test func regionsShareNoGuestAddress() {
        let low = shape("low", at: 1 << 20)
        let end: UInt64 = (1 << 20) + 16 * 4096
        #expect(throws: Never.self) { try RegionShape.validate([shape("next", at: end), low]) }
        expectRefused([shape("next", at: end - 1), low], .regionsOverlap("low", "next"))
        expectRefused([low, shape("inside", at: (1 << 20) + 4096, pageCount: 1)], .regionsOverlap("low", "inside"))
        expectRefused(
            [shape("big", pageCount: 1 << 20), shape("x", at: 1 << 30), shape("y", at: 1 << 31)],
            .regionsOverlap("big", "x")
        )
    }

    @Test func kindAndConfigurationAreHeldToTheirBounds() {
        for count in [0, 65] {
            let refusal = ProtocolError.outOfBounds(
                frame: .regions,
                field: "length of guest kind",
                found: UInt64(count),
                allowed: 1...64
            )
            let guest = GuestAnnouncement(kind: Samples.name(count), configuration: [], regions: [shape()])
            #expect(throws: refusal) { try ControlMessage.regions(guest: guest).encode() }
            let bad = text(Samples.name(count)) + [UInt8](repeating: 0, count: 64)
            #expect(throws: refusal) { try decodeControl(.regions, bad) }
        }
        let refusal = ProtocolError.outOfBounds(
            frame: .regions,
            field: "configuration length",
            found: 65537,
            allowed: 0...65536
        )
        let large = [UInt8](repeating: 0, count: 65537)
        let guest = GuestAnnouncement(kind: "demo", configuration: large, regions: [shape()])
        #expect(throws: refusal) { try ControlMessage.regions(guest: guest).encode() }
        #expect(throws: refusal) { try decodeControl(.regions, text("demo") + bytes(UInt32(65537)) + large) }
    }
}
