extension ProtocolError: CustomStringConvertible {
    /// One line: the frame, the value found, and what is allowed.
    package var description: String {
        switch self {
        case .wrongMagic(let frame, let found):
            return "\(frame): begins with \(hex(found)), not with the magic \(hex(Wire.magic)) (\"PGFY\"); "
                + "the peer is not a pageferry agent"
        case .versionMismatch(let found):
            return "peer speaks protocol version \(found), this is version \(Wire.version); "
                + "run the same pageferry release on both hosts"
        case .unknownKind(let kind):
            return "frame kind \(hex(kind)) is unknown; the peer is not a pageferry agent or has lost its place"
        case .notAnOpening(let frame):
            return "a connection opens with HELLO or JOIN, not with \(frame)"
        case .wrongConnection(let frame, let control):
            return "\(frame) does not belong on \(control ? "the control connection" : "a page lane")"
        case .reservedNotZero(let frame, let found):
            return "\(frame): a reserved field is \(hex(found)), not 0"
        case .lengthOutOfBounds(let frame, let found, let allowed):
            return "\(frame): payload of \(found) bytes, allowed \(text(allowed))"
        case .truncatedHeader(let found, let needed):
            return "frame header: \(found) of \(needed) bytes"
        case .truncated(let frame, let field, let found, let needed):
            return "\(frame): payload ends inside \(field): \(found) of \(needed) bytes"
        case .trailingBytes(let frame, let count):
            return "\(frame): \(count) bytes after the last field"
        case .outOfBounds(let frame, let field, let found, let allowed):
            return "\(frame): \(field) is \(found), allowed \(text(allowed))"
        case .unknownValue(let frame, let field, let found):
            return "\(frame): \(field) \(found) is unknown"
        case .invalidUTF8(let frame, let field):
            return "\(frame): \(field) is not valid UTF-8"
        case .controlCharacter(let frame, let field, let found):
            return "\(frame): \(field) holds the control character U+\(String(found, radix: 16, uppercase: true))"
        case .duplicateName(let frame, let name):
            return "\(frame): the name \"\(name)\" is used twice"
        case .pageSize(let region, let found):
            return "REGIONS: page size of region \"\(region)\" is \(found), "
                + "allowed are powers of two in \(Wire.minPageSize)...\(Wire.maxPageSize)"
        case .regionOverflow(let region, let guestAddress):
            return "REGIONS: region \"\(region)\" at guest address \(hex(guestAddress)) ends beyond 64 bits"
        case .regionsOverlap(let first, let second):
            return "REGIONS: regions \"\(first)\" and \"\(second)\" overlap"
        case .memoryTooLarge(let region):
            return "REGIONS: with region \"\(region)\" the memory exceeds \(Wire.maxMemoryBytes) bytes"
        case .sliceOffset(let slice, let found):
            return "SLICES: offset of slice \(slice) is \(found), allowed are multiples of \(Wire.minPageSize)"
        case .slicePageSize(let slice, let found):
            return "SLICES: page size of slice \(slice) is \(found), "
                + "allowed are powers of two in \(Wire.minPageSize)...\(Wire.maxPageSize)"
        case .slicesOverlap(let first, let second):
            return "SLICES: slices \(first) and \(second) share bytes of the file"
        case .unknownRegion(let run, let regionCount):
            return "\(run): there is no such region, allowed 0...\(regionCount - 1)"
        case .runOutOfRange(let run, let pageCount):
            return run.count == 0
                ? "\(run): a run has at least one page" : "\(run): not inside the region's \(pageCount) pages"
        case .runTooLong(let frame, let run, let maxCount):
            return "\(frame): \(run): one frame holds at most \(maxCount) pages of that region"
        case .pagesLength(let run, let found, let expected):
            return "PAGES: \(run): \(found) bytes follow, not \(expected)"
        case .probeWithRun(let frame, let run):
            return "\(frame): \(run): a probe's run is all zeros"
        }
    }
}

private func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

private func text(_ bounds: ClosedRange<UInt64>) -> String {
    bounds.lowerBound == bounds.upperBound ? "\(bounds.lowerBound)" : "\(bounds.lowerBound)...\(bounds.upperBound)"
}
