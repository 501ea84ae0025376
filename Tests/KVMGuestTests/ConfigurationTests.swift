import Guest
import LandedGuest
import Testing

@testable import KVMGuest

@Suite("The configuration of a guest")
struct ConfigurationTests {
    @Test("survives a round trip through its description")
    func travels() throws {
        let configuration = KVMConfiguration(memoryBytes: 8 << 20, processors: 3, hasInterruptChip: false)
        #expect(try KVMConfiguration(configuration.description) == configuration)
        #expect(configuration.description.regions.map(\.pageCount) == [2048])
    }

    @Test(
        "is refused if no guest can be made from it",
        arguments: [
            (64 << 20, 0, "a guest cannot have 0 vCPUs; give 1 to 12"),
            (64 << 20, 13, "a guest cannot have 13 vCPUs; give 1 to 12"),
            (1 << 20, 1, "a guest of 1 vCPU cannot have 1048576 bytes of memory; give 2 MiB to 3 GiB"),
            (4 << 30, 2, "a guest of 2 vCPUs cannot have 4294967296 bytes of memory; give 3 MiB to 3 GiB"),
            ((2 << 20) + 1, 1, "a memory of 2097153 bytes is not whole pages of 4096 bytes"),
        ]
    )
    func refused(memoryBytes: Int, processors: Int, reason: String) throws {
        let configuration = KVMConfiguration(memoryBytes: memoryBytes, processors: processors)
        #expect(throws: KVMGuestError(reason)) { try configuration.validate() }
        // A configuration from a source gets the same checks.
        #expect(throws: KVMGuestError(reason)) { try KVMConfiguration(configuration.description) }
    }

    @Test("is refused if the description contradicts it")
    func contradiction() throws {
        var description = KVMConfiguration(memoryBytes: 8 << 20).description
        description.regions[0].pageCount += 1
        #expect(throws: KVMGuestError.self) { try KVMConfiguration(description) }
        description.configuration = Array("{}".utf8)
        let error = #expect(throws: KVMGuestError.self) { _ = try KVMLanding().land(description) }
        #expect("\(error, default: "")".hasPrefix("the guest's configuration cannot be read: "))
    }
}
