import Firecracker
import FoundationEssentials
import Guest
import LinuxSystem
import Outside

/// What must be known of a microVM before it arrives: the rest is in its snapshot.
public struct MicroVMConfiguration: Codable, Hashable, Sendable {
    /// The release of Firecracker that it runs in: `1.12.1`.
    let firecracker: String
    /// MiB of its memory.
    let memoryMiB: Int
    /// Bytes in a page of its memory.
    let pageSize: Int

    /// The kind that a guest's description carries.
    public static let kind = "firecracker"

    private static let maxMemoryMiB = 1 << 24
    /// Bytes of the memory file at which Firecracker's regions may begin: releases differ in where they leave room for
    /// devices, below 4 GiB and at 256 GiB. Pieces that begin at all of them lie whole in the regions of each.
    private static let borders = [3 << 30, 3328 << 20, 255 << 30]

    /// Takes what a Firecracker says of itself.
    ///
    /// - Throws: ``MicroVMError`` if no microVM has that memory.
    init(firecracker: String, machine: Machine) throws(MicroVMError) {
        self.firecracker = firecracker
        memoryMiB = machine.memoryMiB
        pageSize = machine.pages == .huge ? HugePagePool.pageSize : 4096
        guard isSound else {
            throw MicroVMError(
                "Firecracker says that its microVM has \(memoryMiB) MiB of memory in pages of \(pageSize) bytes; a microVM "
                    + "that moves has whole pages, and at most \(MicroVMConfiguration.maxMemoryMiB) MiB"
            )
        }
    }

    /// Whether there can be such a memory: nothing else may be asked of one that there cannot.
    private var isSound: Bool {
        guard Untrusted(memoryMiB).within(1...MicroVMConfiguration.maxMemoryMiB) != nil else { return false }
        return (pageSize == 4096 || pageSize == HugePagePool.pageSize) && byteCount % pageSize == 0
    }

    /// Bytes of its memory.
    var byteCount: Int { memoryMiB << 20 }

    /// The pieces of its memory file that are announced as regions, in bytes.
    var pieces: [Range<Int>] {
        let ends = MicroVMConfiguration.borders.filter { $0 < byteCount } + [byteCount]
        return zip([0] + ends, ends).map { $0..<$1 }
    }

    /// What a destination must know to take it.
    var description: GuestDescription {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
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
            throw MicroVMError("the microVM's memory is not that which its configuration makes")
        }
    }
}
