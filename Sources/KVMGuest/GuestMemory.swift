import Glibc
import KVMGuestCode
import LinuxSystem

/// The guest's memory, as `guest.S` lays it out: a page of code, a page with a block for each vCPU, and the vCPUs' slices.
struct GuestMemory: Sendable {
    /// Between what two passes write to one page; STEP in `guest.S`.
    private static let step: UInt32 = 0x9e37_79b1
    /// Where the last word of a page is; LAST in `guest.S`.
    private static let lastWord = 4092
    /// Bytes of a block, of which the guest does not change the first 16.
    private static let blockBytes = 64
    private static let firstPage = 2
    /// What a page of a slice holds between its first word and its last, which the guest never touches.
    private static let filling = (4..<lastWord).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }

    let region: MemoryRegion
    private let processors: Int
    private let hasInterruptChip: Bool

    init(_ region: MemoryRegion, _ configuration: KVMConfiguration) {
        self.region = region
        processors = configuration.processors
        hasInterruptChip = configuration.hasInterruptChip
    }

    /// The pages that a vCPU works on.
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

    /// The byte by which a vCPU says that all is well.
    static func goodMark(of processor: Int) -> UInt8 { UInt8(ascii: "a") + UInt8(processor) }

    /// What a vCPU begins with: behind a pass that wrote, with the key 0, what ``fill()`` writes.
    func firstRegisters(of processor: Int) -> VirtualProcessor.Registers {
        var registers = VirtualProcessor.Registers()
        registers.rbx = UInt64(blockAddress(of: processor))
        return registers
    }

    /// Writes code, blocks and all pages of a guest that is born here.
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

    /// START, END, PRIORITY and MARK of a vCPU's block.
    private func block(of processor: Int) -> (UInt32, UInt32, UInt32, UInt32) {
        let slice = slice(of: processor)
        // The task priority register, which exists where there is a local APIC; otherwise a word behind the rest.
        let priority = hasInterruptChip ? 0xfee0_0080 : UInt32(blockAddress(of: processor) + 48)
        return (
            address(of: slice.lowerBound), address(of: slice.upperBound), priority,
            UInt32(GuestMemory.goodMark(of: processor))
        )
    }

    /// The page that a vCPU is at.
    func page(at registers: VirtualProcessor.Registers) -> Int {
        Int(clamping: registers.rdi / UInt64(KVMConfiguration.pageSize))
    }

    /// How many of the pages that hold code and blocks are wrong.
    func wrongFirstPages() -> Int {
        let code = memcmp(region.base, guest_code(), guest_code_size()) == 0
        let blocks = (0..<processors).allSatisfy { processor in
            withUnsafeBytes(of: block(of: processor)) { holds(region.base + blockAddress(of: processor), $0) }
        }
        return (code ? 0 : 1) + (blocks ? 0 : 1)
    }

    /// How many pages of a vCPU's slice do not hold what it has written to them, by where it stands.
    func wrongPages(of processor: Int, at registers: VirtualProcessor.Registers) -> Int {
        let slice = slice(of: processor)
        let key = UInt32(truncatingIfNeeded: registers.rbp)
        let (cursor, rest) = registers.rdi.quotientAndRemainder(dividingBy: UInt64(KVMConfiguration.pageSize))
        // Before its first instruction, and between two passes, all of them are of one pass.
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
