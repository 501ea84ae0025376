import Glibc
import LinuxSystem
import OwnThread
import Synchronization
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct BusFaultTests {
    /// A resolver that maps the touched page.
    private final class Resolver: BusFaultResolver {
        let mapping: Mapping
        let resolved = Atomic<Int>(0)

        init(_ mapping: consuming Mapping) { self.mapping = mapping }

        private var range: Range<UInt64> {
            let base = UInt64(UInt(bitPattern: mapping.base))
            return base..<base + UInt64(mapping.byteCount)
        }

        func owns(_ address: UInt64) -> Bool { range.contains(address) }

        func resolve(_ address: UInt64) {
            resolved.add(1, ordering: .relaxed)
            let page = UnsafeMutableRawPointer(bitPattern: UInt(address & ~4095))
            _ = mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        }
    }

    @Test func `a SIGBUS that a process sends is not a fault, and the next fault is resolved`() throws {
        let file = try MemoryFile(name: "short", byteCount: 8192)
        let resolver = Resolver(try Mapping(sharing: file))
        BusFaults.add(resolver)
        defer { BusFaults.remove(resolver) }
        #expect(truncate(file.path, 0) == 0)
        #expect(kill(getpid(), SIGBUS) == 0)
        #expect(pthread_kill(pthread_self(), SIGBUS) == 0)
        #expect(resolver.mapping.base.load(as: UInt8.self) == 0)
        #expect(kill(getpid(), SIGBUS) == 0)
        #expect((resolver.mapping.base + 4096).load(as: UInt8.self) == 0)
        #expect(resolver.resolved.load(ordering: .relaxed) == 2)
    }
}
