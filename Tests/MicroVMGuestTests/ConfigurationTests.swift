import Firecracker
import Guest
import Testing

@testable import MicroVMGuest

@Suite("A microVM's configuration")
struct ConfigurationTests {
    private func configuration(_ memoryMiB: Int, _ pages: Machine.Pages = .base) throws -> MicroVMConfiguration {
        try MicroVMConfiguration(firecracker: "1.12.1", machine: Machine(memoryMiB: memoryMiB, pages: pages))
    }

    @Test(
        "is announced in pieces that fit into the regions of every Firecracker release",
        arguments: [(128, 1), (3072, 1), (3073, 2), (3328, 2), (4096, 3), (300 << 10, 4)]
    )
    func pieces(memoryMiB: Int, count: Int) throws {
        let configuration = try configuration(memoryMiB)
        let pieces = configuration.pieces
        #expect(pieces.count == count)
        #expect(pieces.first?.lowerBound == 0 && pieces.last?.upperBound == memoryMiB << 20)
        for (piece, next) in zip(pieces, pieces.dropFirst()) { #expect(piece.upperBound == next.lowerBound) }
        let pages = configuration.description.regions.reduce(0) { $0 + $1.pageCount }
        #expect(pages == memoryMiB << 8)
        // Memory continues after the gap below 4 GiB from 3 GiB or from 3328 MiB on, depending on the release.
        for border in [3072 << 20, 3328 << 20] where border < memoryMiB << 20 {
            #expect(pieces.contains { $0.lowerBound == border })
        }
    }

    @Test("survives a round trip through its description", arguments: [Machine.Pages.base, .huge])
    func travels(pages: Machine.Pages) throws {
        let sent = try configuration(4096, pages)
        #expect(try MicroVMConfiguration(sent.description) == sent)
        #expect(sent.description.regions[0].pageSize == (pages == .huge ? 2 << 20 : 4096))
    }

    @Test("is refused if the description contradicts it")
    func contradiction() throws {
        var description = try configuration(128).description
        description.regions[0].pageCount += 1
        #expect(throws: MicroVMError.self) { try MicroVMConfiguration(description) }
        description = try configuration(128).description
        description.configuration = Array(
            #"{"firecracker":"1.12.1","memoryMiB":9223372036854775807,"pageSize":4096}"#.utf8
        )
        #expect(throws: MicroVMError.self) { try MicroVMConfiguration(description) }
        description.configuration = Array("{}".utf8)
        #expect(throws: MicroVMError.self) { try MicroVMConfiguration(description) }
        description.kind = "kvm"
        let error = #expect(throws: MicroVMError.self) { try MicroVMConfiguration(description) }
        #expect("\(error, default: "")".contains("only microVMs of Firecracker arrive here"))
    }

    @Test(
        "is refused if Firecracker reports impossible values",
        arguments: [-1, 0, 1 << 43, Int.max, Int.min, 1 << 24 + 1, 1 << 44]
    )
    func lies(memoryMiB: Int) {
        for pages in [Machine.Pages.base, .huge] {
            let error = #expect(throws: MicroVMError.self) { try configuration(memoryMiB, pages) }
            #expect(error?.description.hasPrefix("Firecracker says that its microVM has \(memoryMiB) MiB") == true)
        }
    }

    @Test("is refused if the memory is not whole huge pages")
    func halfPage() {
        #expect(throws: MicroVMError.self) { try configuration(129, .huge) }
    }
}
