import LinuxSystem
import PageProtocol
import Synchronization

/// The slices of a file that one destination requests, with counts of what was sent.
final class SnapshotMemory: Sendable {
    let table: RegionTable
    let requests = Atomic<Int>(0)
    let pagesSent = Atomic<Int>(0)
    let zeroPages = Atomic<Int>(0)
    let bytesSent = Atomic<Int>(0)
    private let file: MappedFile
    private let renew: @Sendable () throws(FileChanged) -> Void
    private let slices: [Slice]

    private struct Slice {
        let offset: Int
        let pageSize: Int
    }

    init(
        file: MappedFile,
        slices: [SnapshotSlice],
        renew: @escaping @Sendable () throws(FileChanged) -> Void
    ) throws(ProtocolError) {
        self.file = file
        self.renew = renew
        table = try RegionTable(slices: slices)
        self.slices = slices.map { Slice(offset: Int($0.offset), pageSize: Int($0.pageSize)) }
    }
}

extension SnapshotMemory: RequestedMemory {
    /// Pages are copied: another process may write to the file at any time.
    static var isCopied: Bool { true }

    @inline(__always)
    func requireUnchanged() throws {
        do throws(FileChanged) {
            try file.requireUnchanged()
        } catch {
            // The error may be about the times only; `renew` finds it again if it is about more.
            try renew()
        }
    }

    @inline(__always)
    func answering<Failure>(_ body: () throws(Failure) -> Void) throws(Failure) { try body() }

    @inline(__always)
    func admit(_ run: PageRun) {
        let slice = slices[Int(run.region)]
        let byteCount = Int(run.count) * slice.pageSize
        // Without this, the kernel would read a long run from the disk in small pieces, as its pages are touched.
        if byteCount > 4096 {
            file.readAhead(at: slice.offset + Int(run.first) * slice.pageSize, byteCount: byteCount)
        }
    }

    @inline(__always)
    func isSent(_ page: Int, region: Int) -> Bool { false }

    @inline(__always)
    func isReleased(_ page: Int, region: Int) -> Bool { false }

    /// A window that copies nothing: the pages that ``isCopied`` means are copied after they were looked at.
    func makeWindow() -> PageWindow { PageWindow(copying: 0) }

    @inline(__always)
    func show(_ pages: Range<Int>, region: Int, in window: inout PageWindow) -> ShownPages? {
        let slice = slices[region]
        let start = file.address(of: slice.offset + pages.lowerBound * slice.pageSize)
        return ShownPages(pages, at: start, pageSize: slice.pageSize)
    }

    @inline(__always)
    func isZero(_ page: Int, region: Int, in shown: ShownPages) -> Bool {
        let slice = slices[region]
        return file.isHole(at: slice.offset + page * slice.pageSize, byteCount: slice.pageSize) || shown.isZero(page)
    }

    @inline(__always)
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool) {
        pagesSent.add(pages.count, ordering: .relaxed)
        if isZero { zeroPages.add(pages.count, ordering: .relaxed) }
    }

    @inline(__always)
    func noteAnswer() { requests.add(1, ordering: .relaxed) }

    /// A snapshot is not pushed.
    @inline(__always)
    var isPushing: Bool { false }

    @inline(__always)
    func noteSent(bytes: Int, lane: Int) { bytesSent.add(bytes, ordering: .relaxed) }

    /// A snapshot has no push that could follow a request.
    @inline(__always)
    func noteNewest(_ run: PageRun) {}

    @inline(__always)
    func completesNow() -> Bool { false }
}
