import SystemPackage
import Testing

@testable import LinuxSystem

/// Giving memory back of which a part belongs to another userfaultfd by now.
@Suite
struct UnregisterTests {
    private func part(_ range: PageRange, _ pages: Range<Int>) -> PageRange {
        PageRange(
            address: range.address(ofPage: pages.lowerBound),
            pageSize: range.pageSize,
            pageCount: pages.count
        )
    }

    /// Whether a userfaultfd still has these pages: only then can another one not register them.
    private func has(_ pages: PageRange, besides other: borrowing Userfaultfd) -> Bool {
        do throws(SystemError) {
            try other.register(pages)
        } catch {
            return error.errno == .resourceBusy
        }
        // The pages were just registered.
        try? other.unregister(pages)
        return false
    }

    /// Compares values of calls that take noncopyable values, which the macro cannot expand.
    private func expect(_ wanted: Bool, _ found: Bool, at place: SourceLocation = #_sourceLocation) {
        #expect(found == wanted, sourceLocation: place)
    }

    @Test func `a part of another userfaultfd stays with that one, and the rest is given back`() throws {
        let region = try MemoryRegion(name: "unregister", pageCount: 1000)
        let old = try Userfaultfd()
        let new = try Userfaultfd()
        let third = try Userfaultfd()
        let middle = part(region.range, 300..<417)
        try old.register(region.range)
        try old.unregister(middle)
        try new.register(middle)
        expect(true, old.unregisterParts(of: region.range))
        expect(true, has(middle, besides: third))
        expect(false, has(part(region.range, 0..<300), besides: third))
        expect(false, has(part(region.range, 417..<1000), besides: third))
        expect(true, new.unregisterParts(of: region.range))
        expect(false, has(middle, besides: third))
    }

    @Test func `memory of another userfaultfd that would take too long to tell apart is left alone`() throws {
        let region = try MemoryRegion(name: "unregister", pageCount: 1 << 20)
        let old = try Userfaultfd()
        let new = try Userfaultfd()
        let third = try Userfaultfd()
        try new.register(region.range)
        expect(false, old.unregisterParts(of: region.range))
        expect(true, has(part(region.range, 0..<1), besides: third))
        expect(true, new.unregisterParts(of: region.range))
    }
}
