import FoundationEssentials
import Guest
import LinuxSystem
import Telemetry

/// The configuration of a guest, from which any host makes the same guest.
package struct KVMConfiguration: Codable, Hashable, Sendable {
    /// The size of the guest's memory, in bytes.
    ///
    /// Whole pages of 4096 bytes, from one MiB more than there are vCPUs up to 3 GiB.
    package var memoryBytes: Int
    /// The number of vCPUs, from 1 to 12, each with pages of its own.
    package var processors: Int
    /// Whether the guest has the kernel's interrupt chip, with a local APIC per vCPU; if not, it has none.
    package var hasInterruptChip: Bool

    /// Makes a configuration; ``validate()`` checks its bounds.
    package init(memoryBytes: Int, processors: Int = 1, hasInterruptChip: Bool = true) {
        self.memoryBytes = memoryBytes
        self.processors = processors
        self.hasInterruptChip = hasInterruptChip
    }

    /// The kind in the description of a guest.
    package static let kind = "kvm"

    static let pageSize = 4096
    /// Bounded by the 64 devices of a migration: each vCPU has five, and three are shared.
    private static let maxProcessors = 12
    /// The guest addresses above this are the processor's own, such as those of the local APIC.
    private static let maxMemoryBytes = 3 << 30

    var pageCount: Int { memoryBytes / KVMConfiguration.pageSize }

    /// Checks every field against its bounds.
    ///
    /// - Throws: ``KVMGuestError`` with the first violation, and the valid values.
    package func validate() throws(KVMGuestError) {
        guard (1...KVMConfiguration.maxProcessors).contains(processors) else {
            throw KVMGuestError("a guest cannot have \(processors) vCPUs; give 1 to \(KVMConfiguration.maxProcessors)")
        }
        // Each vCPU reports once per MiB of its slice, and the code and the blocks need two pages.
        let least = (processors + 1) << 20
        guard (least...KVMConfiguration.maxMemoryBytes).contains(memoryBytes) else {
            throw KVMGuestError(
                "a guest of \(counted(processors, "vCPU")) cannot have \(memoryBytes) bytes of memory; give \(least >> 20) MiB to 3 GiB"
            )
        }
        guard memoryBytes % KVMConfiguration.pageSize == 0 else {
            throw KVMGuestError("a memory of \(memoryBytes) bytes is not whole pages of 4096 bytes")
        }
    }

    /// The description that carries this configuration.
    var description: GuestDescription {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Numbers and strings can always be encoded.
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
            throw KVMGuestError("the guest's memory regions do not match its configuration")
        }
    }

    /// Maps the guest's memory, which reads as zeros.
    ///
    /// - Throws: ``KVMGuestError`` if this host has too little memory available, `SystemError` if the kernel refuses.
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
