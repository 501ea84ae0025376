import Foundation
import Glibc
import Testing

@testable import LinuxSystem

/// The content of a core dump of this process.
@Suite(.serialized)
struct CoreDumpTests {
    /// The flags in /proc/self/smaps of the mapping that holds an address.
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

    @Test func `a core dump never contains a guest's memory, however it is mapped`() throws {
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
        let staging = StagingBuffer(byteCount: 5000)
        #expect(staging.bytes.count == 8192)
        #expect(staging.bytes.baseAddress.map { flags(at: $0).contains("dd") } == true)
        let path = "/tmp/pft-dump-\(getpid())"
        try Data(count: 8192).write(to: URL(fileURLWithPath: path))
        defer { unlink(path) }
        let mapped = try MappedFile(path)
        withExtendedLifetime(mapped) { #expect(flags(at: mapped.address(of: 0)).contains("dd")) }
    }
}

@Suite(.serialized)
struct ProcessLockTests {
    @Test func `another user's lock on a readable file does not prevent the lock on a process`() throws {
        let (one, _) = try StreamSocket.pair()
        let process = try PeerProcess(peerOf: one.stream)
        #expect(process.id == getpid())
        // Any user can open this file, and can therefore lock it.
        let foreign = open("/proc/self/stat", O_RDONLY | O_CLOEXEC)
        defer { close(foreign) }
        #expect(flock(foreign, LOCK_EX | LOCK_NB) == 0)
        let lock = try ProcessLock(of: process)
        let error = #expect(throws: SystemError.self) { _ = try ProcessLock(of: process) }
        #expect(error?.advice == "process \(getpid()) has it")
        // No other user can open the file that the process lock uses.
        var status = stat()
        #expect(fstat(lock.descriptor.raw, &status) == 0 && status.st_mode & 0o077 == 0)
    }
}
