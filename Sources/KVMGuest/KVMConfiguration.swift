import FoundationEssentials
import Guest
import LinuxSystem

/// Everything that makes a guest what it is: the same configuration makes the same guest elsewhere.
public struct KVMConfiguration: Codable, Hashable, Sendable {
    /// The guest's memory, in bytes; whole pages of 4 KiB.
    public var memoryBytes: Int
    /// How many vCPUs it has, each with pages of its own.
    public var processors: Int
    /// Whether its interrupt chip, with a local APIC for each vCPU, is the kernel's; it has none otherwise.
    public var hasInterruptChip: Bool

    /// Makes a configuration out of its parts; ``validate()`` says whether they go together.
    public init(memoryBytes: Int, processors: Int = 1, hasInterruptChip: Bool = true) {
        self.memoryBytes = memoryBytes
        self.processors = processors
        self.hasInterruptChip = hasInterruptChip
    }

    /// The kind that a guest's description carries.
    public static let kind = "kvm"

    static let pageSize = 4096
    /// Five devices each and three for all of them: a migration carries 64.
    private static let maxProcessors = 12
    /// What lies above this is the processor's own, such as the local APIC.
    private static let maxMemoryBytes = 3 << 30

    var pageCount: Int { memoryBytes / KVMConfiguration.pageSize }

    /// Checks that a guest can be made of it.
    ///
    /// - Throws: what is wrong, and what would be right.
    public func validate() throws(KVMGuestError) {
        guard (1...KVMConfiguration.maxProcessors).contains(processors) else {
            throw KVMGuestError("a guest cannot have \(processors) vCPUs; give 1 to \(KVMConfiguration.maxProcessors)")
        }
        // Each vCPU reports once in a MiB, and the guest's code needs some pages.
        let least = (processors + 1) << 20
        guard (least...KVMConfiguration.maxMemoryBytes).contains(memoryBytes) else {
            throw KVMGuestError(
                "a guest of \(processors) vCPUs cannot have \(memoryBytes) bytes of memory; give \(least >> 20) MiB to 3 GiB"
            )
        }
        guard memoryBytes % KVMConfiguration.pageSize == 0 else {
            throw KVMGuestError("a memory of \(memoryBytes) bytes is not whole pages of 4096 bytes")
        }
    }

    /// What a destination must know to make the same guest.
    var description: GuestDescription {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        guard let bytes = try? encoder.encode(self) else { preconditionFailure("a configuration has no JSON") }
        let region = GuestDescription.Region(
            name: "memory",
            pageSize: KVMConfiguration.pageSize,
            pageCount: pageCount
        )
        return GuestDescription(
            kind: KVMConfiguration.kind,
            name: "kvm",
            configuration: Array(bytes),
            regions: [region]
        )
    }

    /// Reads and validates the configuration that a description carries.
    init(_ description: GuestDescription) throws(KVMGuestError) {
        do {
            self = try JSONDecoder().decode(Self.self, from: Data(description.configuration))
        } catch {
            throw KVMGuestError("the guest's configuration cannot be read: \(error)")
        }
        try validate()
        guard description.kind == KVMConfiguration.kind, description.regions == self.description.regions else {
            throw KVMGuestError("the guest's memory is not that which its configuration makes")
        }
    }

    /// Maps the guest's memory, which reads as zeros.
    ///
    /// - Throws: ``KVMGuestError`` with how much there is where this host has too little.
    func makeMemory() throws -> MemoryRegion {
        if let available = ProcessFile.availableMemory, memoryBytes > available {
            throw KVMGuestError(
                "the guest needs \(memoryBytes >> 20) MiB of memory, and this host has \(available >> 20) MiB available; "
                    + "free memory here or use a smaller guest"
            )
        }
        return try MemoryRegion(name: "memory", pageCount: pageCount)
    }
}
