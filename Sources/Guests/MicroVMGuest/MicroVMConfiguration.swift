import Firecracker
import FoundationEssentials
import Guest
import LinuxSystem
import Outside

/// The part of a microVM's configuration that a destination needs before the snapshot, which has the rest.
package struct MicroVMConfiguration: Codable, Hashable, Sendable {
    /// The release of Firecracker that the microVM runs in, such as `1.12.1`.
    let firecracker: String
    /// The size of the memory, in MiB.
    let memoryMiB: Int
    /// Bytes in a page of the memory.
    let pageSize: Int

    /// The kind in the description of a microVM.
    package static let kind = "firecracker"

    private static let maxMemoryMiB = 1 << 24
    /// Offsets into the memory file at which some release of Firecracker begins a memory region.
    ///
    /// Releases differ in the address ranges that they reserve for devices, below 4 GiB and at 256 GiB. A piece that
    /// ends at the next of these offsets lies whole in one region of every release.
    private static let borders = [3 << 30, 3328 << 20, 255 << 30]

    /// Makes the configuration of a microVM from Firecracker's answers.
    ///
    /// - Throws: ``MicroVMError`` if the memory's size is not one that can be moved.
    init(firecracker: String, machine: Machine) throws(MicroVMError) {
        self.firecracker = firecracker
        memoryMiB = machine.memoryMiB
        pageSize = machine.pages == .huge ? HugePagePool.pageSize : 4096
        guard isSound else {
            throw MicroVMError(
                "Firecracker says that its microVM has \(memoryMiB) MiB of memory in pages of \(pageSize) bytes; only "
                    + "whole pages, and at most \(MicroVMConfiguration.maxMemoryMiB) MiB, can be moved"
            )
        }
    }

    /// Whether the memory's size and page size are within bounds; every other property requires that.
    private var isSound: Bool {
        guard Untrusted(memoryMiB).within(1...MicroVMConfiguration.maxMemoryMiB) != nil else { return false }
        return (pageSize == 4096 || pageSize == HugePagePool.pageSize) && byteCount % pageSize == 0
    }

    /// The size of the memory, in bytes.
    var byteCount: Int { memoryMiB << 20 }

    /// The byte ranges of the memory file that are announced as regions.
    var pieces: [Range<Int>] {
        let ends = MicroVMConfiguration.borders.filter { $0 < byteCount } + [byteCount]
        return zip([0] + ends, ends).map { $0..<$1 }
    }

    /// The description that carries this configuration.
    var description: GuestDescription {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Numbers and strings can always be encoded.
        guard let bytes = try? encoder.encode(self) else { preconditionFailure("a configuration has no JSON") }
        return GuestDescription(
            kind: MicroVMConfiguration.kind,
            name: MicroVMConfiguration.kind,
            configuration: Array(bytes),
            regions: pieces.enumerated().map { index, piece in
                GuestDescription.Region(
                    name: "memory\(index)",
                    pageSize: pageSize,
                    pageCount: piece.count / pageSize
                )
            }
        )
    }

    /// Reads and checks the configuration that a description carries.
    init(_ description: GuestDescription) throws(MicroVMError) {
        guard description.kind == MicroVMConfiguration.kind else {
            throw MicroVMError(
                "only microVMs of Firecracker arrive here, and the workload is of kind \(description.kind)"
            )
        }
        do {
            self = try JSONDecoder().decode(Self.self, from: Data(description.configuration))
        } catch {
            throw MicroVMError("the microVM's configuration cannot be read: \(error)")
        }
        guard isSound, description.regions == self.description.regions else {
            throw MicroVMError("the microVM's memory regions do not match its configuration")
        }
    }
}
