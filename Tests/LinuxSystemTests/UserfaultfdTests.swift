import SystemPackage
import Testing

@testable import LinuxSystem

@Suite("A userfaultfd", .serialized)
struct UserfaultfdTests {
    private final class Faulting: Sendable {
        let region: MemoryRegion
        let userfaultfd: Userfaultfd

        init(pages: Int) throws {
            region = try MemoryRegion(name: "test", pageCount: pages)
            userfaultfd = try Userfaultfd()
            try userfaultfd.register(region.range)
        }

        /// Answers one fault with a page of this byte, and says where it was.
        func answerOne(with byte: UInt8) throws -> UInt64 {
            let page = try MemoryRegion(name: "page", pageCount: 1)
            page.base.initializeMemory(as: UInt8.self, repeating: byte, count: 4096)
            let never = try EventDescriptor()
            var events = Userfaultfd.EventBuffer(capacity: 4)
            guard try userfaultfd.wait(or: never) == .events else { return 0 }
            try userfaultfd.read(into: &events)
            guard events.count == 1, case .fault(let address) = events[0] else { return 0 }
            #expect(userfaultfd.copy(to: address & ~4095, from: page.base, byteCount: 4096) == .placed(bytes: 4096))
            return address & ~4095
        }
    }

    @Test("lets a thread wait for a page until it is placed", .timeLimit(.minutes(1)))
    func fault() throws {
        let faulting = try Faulting(pages: 4)
        let reader = ThreadGroup()
        try reader.run("reader") {
            #expect(faulting.region.page(2).load(as: UInt8.self) == 7)
        }
        #expect(try faulting.answerOne(with: 7) == faulting.region.range.address(ofPage: 2))
        reader.join()
    }

    @Test("places runs, zeros, and nothing over a page that is there")
    func placements() throws {
        let faulting = try Faulting(pages: 8)
        let source = try MemoryRegion(name: "source", pageCount: 4)
        source.base.initializeMemory(as: UInt8.self, repeating: 5, count: source.byteCount)
        let range = faulting.region.range
        let two = faulting.userfaultfd.copy(to: range.address(ofPage: 1), from: source.base, byteCount: 2 * 4096)
        #expect(two == .placed(bytes: 2 * 4096))
        #expect(faulting.userfaultfd.zero(range.address(ofPage: 4), byteCount: 4096) == .placed(bytes: 4096))
        #expect(faulting.userfaultfd.copy(to: range.address(ofPage: 2), from: source.base, byteCount: 4096) == .present)
        // A run that meets a page which is there stops before it.
        let partial = faulting.userfaultfd.copy(to: range.address(ofPage: 3), from: source.base, byteCount: 2 * 4096)
        #expect(partial == .placed(bytes: 4096))
        #expect(faulting.region.page(4).load(as: UInt8.self) == 0)
        #expect(MemoryRegion.isPresent(faulting.region.page(1)))
        #expect(!MemoryRegion.isPresent(faulting.region.page(7)))
        try faulting.userfaultfd.unregister(range)
        #expect(faulting.userfaultfd.copy(to: range.address(ofPage: 7), from: source.base, byteCount: 4096) == .gone)
    }

    #if DEBUG
    @Test("says which permission is missing, and how to get it")
    func permission() throws {
        let error = #expect(throws: SystemError.self) {
            try ForcedErrno.with([.open: [.permissionDenied], .userfaultfd: [.notPermitted]]) { _ = try Userfaultfd() }
        }
        #expect(error?.description.contains("cannot open a userfaultfd") == true)
        #expect(error?.description.contains("setfacl") == true)
    }
    #endif
}

@Suite("A page bitmap")
struct PageBitmapTests {
    @Test("agrees with a set of numbers")
    func agrees() throws {
        let bitmap = try PageBitmap(pageCount: 1000)
        var model: Set<Int> = []
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let first = Int.random(in: 0..<1000, using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0: #expect(bitmap.insert(first) == model.insert(first).inserted)
            case 1: #expect(bitmap.remove(first) == (model.remove(first) != nil))
            default:
                let run = first..<min(1000, first + Int.random(in: 1...150, using: &random))
                #expect(bitmap.insert(run: run) == run.filter { !model.contains($0) }.count)
                model.formUnion(run)
            }
            #expect(bitmap.count == model.count)
            #expect(bitmap.firstClear(from: first) == (first..<1000).first { !model.contains($0) })
        }
    }
}

@Suite("A zero scan")
struct ZeroScanTests {
    @Test("finds a single byte that is not zero, wherever it is")
    func everyByte() throws {
        let page = try MemoryRegion(name: "page", pageCount: 1)
        #expect(ZeroScan.isZero(page.base, byteCount: 4096))
        for byte in 0..<4096 {
            page.base.storeBytes(of: 1, toByteOffset: byte, as: UInt8.self)
            #expect(!ZeroScan.isZero(page.base, byteCount: 4096))
            page.base.storeBytes(of: 0, toByteOffset: byte, as: UInt8.self)
        }
    }
}
