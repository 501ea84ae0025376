import LinuxSystem

/// The memory of a benchmark's far end.
struct BenchMemory {
    private let setup: BenchSetup
    let region: SourceRegion
    /// The process that holds the memory; nil if this one does.
    private let holder: Holder?

    /// Allocates memory, and fills it with the content of a setup.
    init(_ setup: BenchSetup) throws {
        self.setup = setup
        switch setup.memory {
        case .own:
            region = .mapped(try BenchMemory.privatePages(setup))
            holder = nil
        case .file:
            let file = try MemoryFile(name: "bench", byteCount: setup.pageCount * 4096)
            let mapping = try MemoryRegion(name: "bench", pageSize: 4096, pageCount: setup.pageCount, of: file, at: 0)
            BenchMemory.fill(mapping, with: setup.content)
            region = .ofFile(try FileRegion(of: file, like: mapping.range))
            holder = nil
        case .process:
            let holder = try Holder(setup)
            region = .ofProcess(try holder.region())
            self.holder = holder
        }
    }

    /// Whether the memory is as a setup wants it.
    func holds(_ other: BenchSetup) -> Bool {
        other.memory == setup.memory && other.content == setup.content && other.pageCount == setup.pageCount
    }

    /// Allocates private memory of this process, and fills it with the content of a setup.
    static func privatePages(_ setup: BenchSetup) throws(SystemError) -> MemoryRegion {
        let region = try MemoryRegion(name: "bench", pageCount: setup.pageCount)
        fill(region, with: setup.content)
        return region
    }

    private static func fill(_ region: MemoryRegion, with content: BenchSetup.Content) {
        switch content {
        case .zeros:
            // Each page is written, so that the far end has pages of its own, as a guest has zero pages of its own.
            for page in 0..<region.pageCount { region.page(page).storeBytes(of: 0, as: UInt64.self) }
        case .text, .binary: BenchContent(content).fill(region)
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
    }

    /// Another far end on this host, which only holds memory.
    private final class Holder: Sendable {
        private let process: CompanionProcess
        /// The process holds the memory as long as this connection is open.
        private let link: FarLink
        private let range: PageRange

        init(_ setup: BenchSetup) throws {
            // The process exits once this one does, since its standard input then ends.
            process = try CompanionProcess(["bench", "--listen", "127.0.0.1:0", "--end-with-input"])
            guard let line = process.readLine(), line.hasPrefix("ready ") else {
                process.kill()
                throw BenchFailure("the process that is to hold memory did not start")
            }
            let link = try FarLink(to: SocketAddress(String(line.dropFirst(6))))
            guard let address = try link.ask(.hold, setup).address else {
                throw BenchFailure("the process that is to hold memory did not say where that is")
            }
            self.link = link
            range = PageRange(address: address, pageSize: 4096, pageCount: setup.pageCount)
        }

        deinit {
            process.kill()
            process.waitForEnd()
        }

        func region() throws(SystemError) -> ProcessRegion {
            ProcessRegion(range, of: ProcessMemory(of: try process.peer())) { _ in }
        }
    }
}
