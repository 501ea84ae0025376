/// Why bytes from a peer were refused, or a value could not be encoded.
///
/// Every case ends the connection that the bytes came from, and nothing else. `description` is one line that names
/// the frame, the value found and what is allowed.
package enum ProtocolError: Error, Hashable, Sendable {
    /// A HELLO or JOIN does not begin with the magic: the peer is another program.
    case wrongMagic(frame: FrameKind, found: UInt32)
    /// The peer speaks another version of the protocol.
    case versionMismatch(found: UInt16)
    /// The header's kind is none of ``FrameKind``.
    case unknownKind(UInt16)
    /// A connection opened with a frame that is neither HELLO nor JOIN.
    case notAnOpening(FrameKind)
    /// A frame of the control connection came on a page lane (`control` false) or the reverse (`control` true).
    case wrongConnection(frame: FrameKind, control: Bool)
    /// A reserved field is not zero.
    case reservedNotZero(frame: FrameKind, found: UInt64)
    /// The header announces a payload length that the kind does not allow, in bytes.
    case lengthOutOfBounds(frame: FrameKind, found: UInt64, allowed: ClosedRange<UInt64>)
    /// The header itself is cut off: `found` of `needed` bytes.
    case truncatedHeader(found: Int, needed: Int)
    /// The payload ends inside a field, with `found` of the `needed` bytes.
    case truncated(frame: FrameKind, field: String, found: Int, needed: Int)
    /// Bytes are left after the last field.
    case trailingBytes(frame: FrameKind, count: Int)
    /// A number, count or length lies outside its bounds.
    case outOfBounds(frame: FrameKind, field: String, found: UInt64, allowed: ClosedRange<UInt64>)
    /// A field holds a number that has no meaning.
    case unknownValue(frame: FrameKind, field: String, found: UInt64)
    /// A text is not valid UTF-8.
    case invalidUTF8(frame: FrameKind, field: String)
    /// A text holds a control character.
    case controlCharacter(frame: FrameKind, field: String, found: UInt32)
    /// Two entries of a frame have the same name.
    case duplicateName(frame: FrameKind, name: String)
    /// A region's page size is not a power of two between 4096 and 1 GiB.
    case pageSize(region: String, found: UInt32)
    /// A region's guest address and size go beyond 64 bits.
    case regionOverflow(region: String, guestAddress: UInt64)
    /// Two regions share guest addresses.
    case regionsOverlap(String, String)
    /// The regions hold more than 2^46 bytes together; `region` is the first one beyond that bound.
    case memoryTooLarge(region: String)
    /// A slice of a file does not begin at a multiple of 4096.
    case sliceOffset(slice: Int, found: UInt64)
    /// A slice's page size is not a power of two between 4096 and 1 GiB.
    case slicePageSize(slice: Int, found: UInt32)
    /// Two slices share bytes of the file.
    case slicesOverlap(Int, Int)
    /// A run names a region that was not announced.
    case unknownRegion(run: PageRun, regionCount: Int)
    /// A run is empty or not inside its region, which has `pageCount` pages.
    case runOutOfRange(run: PageRun, pageCount: UInt64)
    /// A run asks for or carries more pages than one frame may.
    case runTooLong(frame: FrameKind, run: PageRun, maxCount: UInt32)
    /// The bytes that follow a PAGES frame are more or fewer than its run has.
    case pagesLength(run: PageRun, found: UInt32, expected: UInt64)
    /// A PROBE or PROBE_REPLY has a run that is not all zeros.
    case probeWithRun(frame: FrameKind, run: PageRun)
}
