import LinuxSystem
import PageProtocol
import Synchronization

/// The slices of a file that one destination has named, and what has been sent of them.
final class SnapshotMemory: Sendable {
    let table: RegionTable
    let requests = Atomic<Int>(0)
    let pagesSent = Atomic<Int>(0)
    let zeroPages = Atomic<Int>(0)
    let bytesSent = Atomic<Int>(0)
    private let file: MappedFile
    private let slices: [Slice]

    private struct Slice {
        let offset: Int
        let pageSize: Int
    }

    /// Makes the memory of slices that lie in the file.
    init(file: MappedFile, slices: [SnapshotSlice]) throws(ProtocolError) {
        self.file = file
        table = try RegionTable(slices: slices)
        self.slices = slices.map { Slice(offset: Int($0.offset), pageSize: Int($0.pageSize)) }
    }
}

extension SnapshotMemory: RequestedMemory {
    /// Others may write into the file at any moment.
    static var isCopied: Bool { true }

    @inline(__always)
    func requireUnchanged() throws { try file.requireUnchanged() }

    @inline(__always)
    func answering<Failure>(_ body: () throws(Failure) -> Void) throws(Failure) { try body() }

    @inline(__always)
    func admit(_ run: PageRun) {
        let slice = slices[Int(run.region)]
        let byteCount = Int(run.count) * slice.pageSize
        // What is touched piece by piece would be read from the disk piece by piece.
        if byteCount > 4096 {
            file.readAhead(at: slice.offset + Int(run.first) * slice.pageSize, byteCount: byteCount)
        }
    }

    @inline(__always)
    func isReleased(_ page: Int, region: Int) -> Bool { false }

    @inline(__always)
    func isZero(_ page: Int, region: Int) -> Bool {
        let slice = slices[region]
        let offset = slice.offset + page * slice.pageSize
        return file.isHole(at: offset, byteCount: slice.pageSize)
            || ZeroScan.isZero(file.address(of: offset), byteCount: slice.pageSize)
    }

    @inline(__always)
    func address(of page: Int, region: Int) -> UnsafeMutableRawPointer {
        let slice = slices[region]
        return file.address(of: slice.offset + page * slice.pageSize)
    }

    @inline(__always)
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool) {
        pagesSent.add(pages.count, ordering: .relaxed)
        if isZero { zeroPages.add(pages.count, ordering: .relaxed) }
    }

    @inline(__always)
    func noteAnswer() { requests.add(1, ordering: .relaxed) }

    @inline(__always)
    func noteSent(bytes: Int) { bytesSent.add(bytes, ordering: .relaxed) }

    /// Nothing is pushed, and nothing completes.
    @inline(__always)
    func noteNewest(_ run: PageRun) {}

    @inline(__always)
    func completesNow() -> Bool { false }
}
