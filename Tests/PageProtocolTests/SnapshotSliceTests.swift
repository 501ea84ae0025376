import PageProtocol
import Testing

@Suite struct SnapshotSliceTests {
    private func slice(at offset: UInt64 = 0, pageSize: UInt32 = 4096, pageCount: UInt64 = 16) -> SnapshotSlice {
        SnapshotSlice(offset: offset, pageSize: pageSize, pageCount: pageCount)
    }

    /// The payload of SLICES, encoded without checks.
    private func payload(_ slices: [SnapshotSlice]) -> [UInt8] {
        slices.reduce(into: bytes(UInt16(slices.count))) {
            $0 += bytes($1.offset) + bytes($1.pageSize) + bytes($1.pageCount)
        }
    }

    /// Checks that the validation, the table, the encoder and the decoder refuse the slices with this error.
    private func expectRefused(_ slices: [SnapshotSlice], _ error: ProtocolError) {
        #expect(throws: error) { try SnapshotSlice.validate(slices) }
        #expect(throws: error) { try RegionTable(slices: slices) }
        #expect(throws: error) { try ControlMessage.slices(slices).encode() }
        guard (1...4096).contains(slices.count) else { return }
        #expect(throws: error) { try decodeControl(.slices, payload(slices)) }
    }

    @Test func aFileHasOneTo4096Slices() throws {
        let many = (0..<4097).map { slice(at: UInt64($0) << 20) }
        expectRefused([], .outOfBounds(frame: .slices, field: "slice count", found: 0, allowed: 1...4096))
        expectRefused(many, .outOfBounds(frame: .slices, field: "slice count", found: 4097, allowed: 1...4096))
        let most = ControlMessage.slices(Array(many.dropLast()))
        #expect(try most.encode().count - 8 == Int(FrameKind.slices.payloadBounds.upperBound))
        #expect(try decodeControl(most.encode()) == most)
        #expect(throws: ProtocolError.outOfBounds(frame: .slices, field: "slice count", found: 0, allowed: 1...4096)) {
            try decodeControl(.slices, bytes(UInt16(0)) + [UInt8](repeating: 0, count: 20))
        }
    }

    @Test(arguments: [UInt32(0), 1, 3, 2048, 4095, 4097, 12288, 1 << 31])
    func aPageSizeIsAPowerOfTwoInItsBounds(_ pageSize: UInt32) {
        expectRefused([slice(pageSize: pageSize)], .slicePageSize(slice: 0, found: pageSize))
    }

    @Test(arguments: [UInt64(1), 512, 4095, 4097, UInt64(Int64.max)])
    func aSliceBeginsAtAMultipleOf4096(_ offset: UInt64) {
        expectRefused([slice(at: 1 << 30), slice(at: offset)], .sliceOffset(slice: 1, found: offset))
    }

    @Test(arguments: [UInt64(1) << 63, .max - 4095, .max])
    func aSliceBeginsWhereAFileCan(_ offset: UInt64) {
        expectRefused(
            [slice(at: offset)],
            .outOfBounds(frame: .slices, field: "offset of slice 0", found: offset, allowed: 0...UInt64(Int64.max))
        )
    }

    @Test(arguments: [UInt64(0), 1 << 34 + 1, 1 << 52, .max])
    func aSliceHasPagesAndNotMoreThanMemoryMay(_ pageCount: UInt64) {
        expectRefused(
            [slice(pageCount: pageCount)],
            .outOfBounds(frame: .slices, field: "page count of slice 0", found: pageCount, allowed: 1...(1 << 34))
        )
    }

    @Test func allSlicesTogetherHaveABound() {
        expectRefused(
            [slice(pageCount: 1 << 34), slice(at: 1 << 46, pageCount: 1)],
            .outOfBounds(
                frame: .slices,
                field: "bytes of all slices up to slice 1",
                found: 1 << 46 + 4096,
                allowed: 0...(1 << 46)
            )
        )
        #expect(throws: Never.self) { try RegionTable(slices: [slice(pageCount: 1 << 34)]) }
    }

    @Test func noByteIsInTwoSlices() {
        expectRefused([slice(), slice(at: 1 << 20), slice(at: 15 * 4096)], .slicesOverlap(0, 2))
        expectRefused([slice(at: 4096), slice(pageSize: 2 << 20, pageCount: 1)], .slicesOverlap(1, 0))
        expectRefused([slice(), slice()], .slicesOverlap(0, 1))
    }

    @Test func slicesLieInAnyOrderAndMayAdjoin() throws {
        let slices = [slice(at: 16 * 4096), slice(), slice(at: 4096 * 33, pageSize: 2 << 20, pageCount: 2)]
        let table = try RegionTable(slices: slices)
        #expect(table.shapes.map(\.guestAddress) == slices.map(\.offset))
        #expect(table.shapes.map(\.pageSize) == slices.map(\.pageSize))
        #expect(table.shapes.map(\.pageCount) == slices.map(\.pageCount))
        let ends: [UInt64] = [32 * 4096, 16 * 4096, 33 * 4096 + 4 << 20]
        #expect(slices.map(\.end) == ends)
    }
}
