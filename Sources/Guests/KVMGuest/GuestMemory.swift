import Glibc
import KVMGuestCode
import LinuxSystem

/// The guest's memory in the layout of `guest.S`: a page of code, a page of vCPU blocks, and the vCPUs' slices.
struct GuestMemory: Sendable {
    /// The difference between the words that two successive passes write to a page; STEP in `guest.S`.
    private static let step: UInt32 = 0x9e37_79b1
    /// The offset of the last word in a page; LAST in `guest.S`.
    private static let lastWord = 4092
    /// Bytes in a vCPU's block, of which the guest never changes the first 16.
    private static let blockBytes = 64
    private static let firstPage = 2
    /// The bytes between the first and the last word of a slice's page, which the guest never touches.
    private static let filling = (4..<lastWord).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }

    let region: MemoryRegion
    private let processors: Int
    private let hasInterruptChip: Bool

    init(_ region: MemoryRegion, _ configuration: KVMConfiguration) {
        self.region = region
        processors = configuration.processors
        hasInterruptChip = configuration.hasInterruptChip
    }

    /// The pages that a vCPU writes and checks.
    func slice(of processor: Int) -> Range<Int> {
        let count = (region.pageCount - GuestMemory.firstPage) / processors
        let first = GuestMemory.firstPage + processor * count
        return first..<(processor == processors - 1 ? region.pageCount : first + count)
    }

    /// The guest's address of a page.
    private func address(of page: Int) -> UInt32 { UInt32(page * KVMConfiguration.pageSize) }

    /// The guest's address of a vCPU's block.
    private func blockAddress(of processor: Int) -> Int {
        KVMConfiguration.pageSize + processor * GuestMemory.blockBytes
    }

    /// The byte that a vCPU writes to the serial port while it finds its memory right.
    static func goodMark(of processor: Int) -> UInt8 { UInt8(ascii: "a") + UInt8(processor) }

    /// A new vCPU's registers: those after a pass with the key 0, whose result ``fill()`` writes.
    func firstRegisters(of processor: Int) -> VirtualProcessor.Registers {
        var registers = VirtualProcessor.Registers()
        registers.rbx = UInt64(blockAddress(of: processor))
        return registers
    }

    /// Writes the code, the blocks and all slices of a new guest.
    func fill() {
        region.base.copyMemory(from: guest_code(), byteCount: guest_code_size())
        for processor in 0..<processors {
            withUnsafeBytes(of: block(of: processor)) { copy($0, to: region.base + blockAddress(of: processor)) }
        }
        for page in GuestMemory.firstPage..<region.pageCount {
            let bytes = region.page(page)
            GuestMemory.filling.withUnsafeBytes { copy($0, to: bytes + 4) }
            bytes.storeBytes(of: address(of: page), as: UInt32.self)
            bytes.storeBytes(of: address(of: page), toByteOffset: GuestMemory.lastWord, as: UInt32.self)
        }
    }

    private func copy(_ bytes: UnsafeRawBufferPointer, to memory: UnsafeMutableRawPointer) {
        UnsafeMutableRawBufferPointer(start: memory, count: bytes.count).copyMemory(from: bytes)
    }

    private func holds(_ memory: UnsafeRawPointer, _ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.baseAddress.map { memcmp(memory, $0, bytes.count) == 0 } ?? true
    }

    /// The words START, END, PRIORITY and MARK of a vCPU's block.
    private func block(of processor: Int) -> (UInt32, UInt32, UInt32, UInt32) {
        let slice = slice(of: processor)
        // The local APIC's task priority register or, in a guest without a local APIC, an unused word of the block.
        let priority = hasInterruptChip ? 0xfee0_0080 : UInt32(blockAddress(of: processor) + 48)
        return (
            address(of: slice.lowerBound), address(of: slice.upperBound), priority,
            UInt32(GuestMemory.goodMark(of: processor))
        )
    }

    /// The page that a vCPU writes or checks now.
    func page(at registers: VirtualProcessor.Registers) -> Int {
        Int(clamping: registers.rdi / UInt64(KVMConfiguration.pageSize))
    }

    /// The number of wrong pages among the two that hold code and blocks.
    func wrongFirstPages() -> Int {
        let code = memcmp(region.base, guest_code(), guest_code_size()) == 0
        let blocks = (0..<processors).allSatisfy { processor in
            withUnsafeBytes(of: block(of: processor)) { holds(region.base + blockAddress(of: processor), $0) }
        }
        return (code ? 0 : 1) + (blocks ? 0 : 1)
    }

    /// The number of pages in a vCPU's slice that do not hold what the vCPU has written, according to its registers.
    func wrongPages(of processor: Int, at registers: VirtualProcessor.Registers) -> Int {
        let slice = slice(of: processor)
        let key = UInt32(truncatingIfNeeded: registers.rbp)
        let (cursor, rest) = registers.rdi.quotientAndRemainder(dividingBy: UInt64(KVMConfiguration.pageSize))
        // Before the first instruction, and between two passes, every page is from the same pass.
        let isBetween = registers.rip == UInt64(guest_code_turn()) || (registers.rip == 0 && key == 0)
        let here = isBetween ? slice.upperBound : Int(clamping: cursor)
        guard isBetween || (rest == 0 && slice.lowerBound <= here && here <= slice.upperBound) else {
            return slice.count
        }
        return slice.count { page in
            let (old, new) = (address(of: page) &+ key &- GuestMemory.step, address(of: page) &+ key)
            let bytes = region.page(page)
            let first = bytes.load(as: UInt32.self)
            let last = bytes.load(fromByteOffset: GuestMemory.lastWord, as: UInt32.self)
            let words =
                page < here
                ? (first, last) == (new, new)
                : (first, last) == (old, old) || page == here && first == new && (last == old || last == new)
            return !words || !GuestMemory.filling.withUnsafeBytes { holds(bytes + 4, $0) }
        }
    }
}
