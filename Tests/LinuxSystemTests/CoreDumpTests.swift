import Foundation
import Glibc
import Testing

@testable import LinuxSystem

/// What a core dump of this process would hold.
@Suite(.serialized)
struct CoreDumpTests {
    /// The flags of the mapping that holds an address, as /proc/self/smaps says.
    private func flags(at address: UnsafeRawPointer) -> [Substring] {
        let place = UInt64(UInt(bitPattern: address))
        var isHere = false
        for line in (ProcessFile.text("/proc/self/smaps") ?? "").split(separator: "\n") {
            let bounds = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt64($0, radix: 16) }
            if bounds.count == 2 { isHere = bounds[0] <= place && place < bounds[1] }
            if isHere, line.hasPrefix("VmFlags:") { return line.split(separator: " ") }
        }
        return []
    }

    @Test func `a guest's memory is in no core dump, however it is mapped`() throws {
        let plain = try MemoryRegion(name: "plain", pageCount: 4)
        #expect(flags(at: plain.base).contains("dd"))
        let file = try MemoryFile(name: "dump-test", byteCount: 16 * 4096)
        let shared = try MemoryRegion(name: "shared", pageSize: 4096, pageCount: 4, of: file, at: 4096)
        #expect(flags(at: shared.base).contains("dd"))
        let alias = try MemoryAlias(of: file, like: shared.range)
        #expect(alias.bytes(0..<4096).baseAddress.map { flags(at: $0).contains("dd") } == true)
        if let huge = try? MemoryRegion(name: "huge", pageSize: HugePagePool.pageSize, pageCount: 1) {
            #expect(flags(at: huge.base).contains("dd"))
        }
        let path = "/tmp/pft-dump-\(getpid())"
        try Data(count: 8192).write(to: URL(fileURLWithPath: path))
        defer { unlink(path) }
        let mapped = try MappedFile(path)
        withExtendedLifetime(mapped) { #expect(flags(at: mapped.address(of: 0)).contains("dd")) }
    }
}

@Suite(.serialized)
struct ProcessLockTests {
    @Test func `a lock on a process is kept from nobody by another user's lock on what all can read`() throws {
        let (one, _) = try StreamSocket.pair()
        let process = try PeerProcess(peerOf: one.stream)
        #expect(process.id == getpid())
        // What any user can open, any user can lock.
        let foreign = open("/proc/self/stat", O_RDONLY | O_CLOEXEC)
        defer { close(foreign) }
        #expect(flock(foreign, LOCK_EX | LOCK_NB) == 0)
        let lock = try ProcessLock(of: process)
        let error = #expect(throws: SystemError.self) { _ = try ProcessLock(of: process) }
        #expect(error?.advice == "process \(getpid()) has it")
        // And what the lock is on, no other user can open.
        var status = stat()
        #expect(fstat(lock.descriptor.raw, &status) == 0 && status.st_mode & 0o077 == 0)
    }
}
