import LinuxSystem

/// The memory of a benchmark's far end.
enum BenchMemory {
    /// Makes memory with its content.
    static func make(_ setup: BenchSetup) throws(SystemError) -> MemoryRegion {
        let region = try MemoryRegion(name: "bench", pageCount: setup.pageCount)
        switch setup.content {
        case .zeros:
            // Written, so that the pages are the far end's own, as a guest's zero pages are.
            for page in 0..<region.pageCount { region.page(page).storeBytes(of: 0, as: UInt64.self) }
        case .random:
            var random = SystemRandomNumberGenerator()
            var state = random.next() | 1
            for page in 0..<region.pageCount {
                let words = region.page(page).assumingMemoryBound(to: UInt64.self)
                words[0] = UInt64(page) + 1
                for index in 1..<512 {
                    state ^= state << 13
                    state ^= state >> 7
                    state ^= state << 17
                    words[index] = state
                }
            }
        }
        return region
    }
}
