import PageProtocol
import Testing

@Suite struct ProtocolErrorTests {
    private static let run = PageRun(region: 2, count: 3, first: 9)

    static let texts: [(ProtocolError, String)] = [
        (
            .versionMismatch(found: 9),
            "peer speaks protocol version 9, this is version 1; run the same pageferry release on both hosts"
        ),
        (
            .wrongMagic(frame: .hello, found: 0x2054_4547),
            "HELLO: begins with 0x20544547, not with the magic 0x59464750 (\"PGFY\"); "
                + "the peer is not a pageferry agent"
        ),
        (.unknownKind(0x99), "frame kind 0x99 is unknown; the peer is not a pageferry agent or has lost its place"),
        (.notAnOpening(.ping), "a connection opens with HELLO or JOIN, not with PING"),
        (.wrongConnection(frame: .pages, control: true), "PAGES does not belong on the control connection"),
        (.wrongConnection(frame: .run, control: false), "RUN does not belong on a page lane"),
        (.reservedNotZero(frame: .join, found: 16), "JOIN: a reserved field is 0x10, not 0"),
        (.lengthOutOfBounds(frame: .run, found: 9, allowed: 16...16), "RUN: payload of 9 bytes, allowed 16"),
        (.truncatedHeader(found: 3, needed: 8), "frame header: 3 of 8 bytes"),
        (
            .truncated(frame: .hello, field: "nonce", found: 3, needed: 16),
            "HELLO: payload ends inside nonce: 3 of 16 bytes"
        ),
        (.trailingBytes(frame: .devices, count: 2), "DEVICES: 2 bytes after the last field"),
        (
            .outOfBounds(frame: .devices, field: "device count", found: 65, allowed: 0...64),
            "DEVICES: device count is 65, allowed 0...64"
        ),
        (.unknownValue(frame: .hello, field: "role", found: 7), "HELLO: role 7 is unknown"),
        (.invalidUTF8(frame: .failure, field: "reason"), "FAILURE: reason is not valid UTF-8"),
        (
            .controlCharacter(frame: .failure, field: "reason", found: 0x1b),
            "FAILURE: reason holds the control character U+1B"
        ),
        (.duplicateName(frame: .regions, name: "ram"), "REGIONS: the name \"ram\" is used twice"),
        (
            .pageSize(region: "ram", found: 5),
            "REGIONS: page size of region \"ram\" is 5, allowed are powers of two in 4096...1073741824"
        ),
        (
            .regionOverflow(region: "ram", guestAddress: 0xff00),
            "REGIONS: region \"ram\" at guest address 0xff00 ends beyond 64 bits"
        ),
        (.regionsOverlap("a", "b"), "REGIONS: regions \"a\" and \"b\" overlap"),
        (.memoryTooLarge(region: "b"), "REGIONS: with region \"b\" the memory exceeds 70368744177664 bytes"),
        (
            .sliceOffset(slice: 1, found: 512),
            "SLICES: offset of slice 1 is 512, allowed are multiples of 4096"
        ),
        (
            .slicePageSize(slice: 1, found: 3),
            "SLICES: page size of slice 1 is 3, allowed are powers of two in 4096...1073741824"
        ),
        (.slicesOverlap(0, 2), "SLICES: slices 0 and 2 share bytes of the file"),
        (
            .unknownRegion(run: run, regionCount: 2),
            "run of 3 pages from page 9 of region 2: there is no such region, allowed 0...1"
        ),
        (
            .runOutOfRange(run: run, pageCount: 10),
            "run of 3 pages from page 9 of region 2: not inside the region's 10 pages"
        ),
        (
            .runOutOfRange(run: .zero, pageCount: 10),
            "run of 0 pages from page 0 of region 0: a run has at least one page"
        ),
        (
            .runTooLong(frame: .pageRequest, run: run, maxCount: 1),
            "PAGE_REQUEST: run of 3 pages from page 9 of region 2: one frame holds at most 1 pages of that region"
        ),
        (
            .pagesLength(run: run, found: 4096, expected: 12288),
            "PAGES: run of 3 pages from page 9 of region 2: 4096 bytes follow, not 12288"
        ),
        (
            .probeWithRun(frame: .probe, run: run),
            "PROBE: run of 3 pages from page 9 of region 2: a probe's run is all zeros"
        ),
    ]

    @Test(arguments: texts)
    func anErrorNamesTheFrameTheValueAndTheBound(_ error: ProtocolError, text: String) {
        #expect(error.description == text)
    }
}
