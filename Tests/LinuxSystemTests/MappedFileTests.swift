import Foundation
import LinuxSystem
import OwnThread
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct MappedFileTests {
    /// A file of a test's own.
    private final class Scratch {
        let path: String
        let handle: FileHandle

        init(in folder: String = "/tmp", byteCount: Int) throws {
            path = "\(folder)/pft-mapped-\(UInt64.random(in: 0...UInt64.max))"
            _ = FileManager.default.createFile(atPath: path, contents: nil)
            handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
            try handle.truncate(atOffset: UInt64(byteCount))
        }

        func write(_ bytes: [UInt8], at offset: Int) throws {
            try handle.seek(toOffset: UInt64(offset))
            try handle.write(contentsOf: bytes)
        }

        deinit {
            // Nobody is left to be told of a file that cannot be removed.
            try? FileManager.default.removeItem(atPath: path)
        }
    }

    @Test(arguments: ["/tmp", "/dev/shm"])
    func `holes are known, to the page`(folder: String) throws {
        let file = try Scratch(in: folder, byteCount: 4096 * 1000 + 1)
        for page in [3, 4, 700, 999] { try file.write([1], at: page * 4096 + 4095) }
        let mapped = try MappedFile(file.path)
        #expect(mapped.byteCount == 4096 * 1000 + 1)
        let data = (0..<1000).filter { !mapped.isHole(at: $0 * 4096, byteCount: 4096) }
        #expect(data == [3, 4, 700, 999])
        #expect(mapped.isHole(at: 5 * 4096, byteCount: 695 * 4096))
        #expect(!mapped.isHole(at: 5 * 4096, byteCount: 696 * 4096))
        #expect(mapped.address(of: 700 * 4096 + 4095).load(as: UInt8.self) == 1)
    }

    @Test func `a file without holes has none, and one of holes only has no data`() throws {
        let full = try Scratch(byteCount: 0)
        try full.write([UInt8](repeating: 0, count: 64 * 4096), at: 0)
        let mapped = try MappedFile(full.path)
        #expect(!(0..<64).contains { mapped.isHole(at: $0 * 4096, byteCount: 4096) })
        let empty = try Scratch(byteCount: 1 << 34)
        #expect(try MappedFile(empty.path).isHole(at: 0, byteCount: 1 << 34))
    }

    @Test func `a file that can only be read is enough, and nobody can write through it`() async throws {
        let file = try Scratch(byteCount: 4096)
        try FileManager.default.setAttributes([.posixPermissions: 0o400], ofItemAtPath: file.path)
        #expect(throws: Never.self) { try MappedFile(file.path).requireUnchanged() }
        await #expect(processExitsWith: .failure) { [path = file.path as String] in
            try MappedFile(path).address(of: 0).storeBytes(of: 1, as: UInt8.self)
        }
    }

    @Test(arguments: [0, 1, 4095])
    func `a file without a whole page is refused`(byteCount: Int) throws {
        let file = try Scratch(byteCount: byteCount)
        let error = #expect(throws: SystemError.self) { try MappedFile(file.path) }
        #expect(error?.description.hasSuffix("it has no whole page of 4096 bytes") == true)
    }

    @Test(arguments: ["/tmp", "/dev/shm"])
    func `reading what was cut off goes on, and is told`(folder: String) throws {
        let file = try Scratch(in: folder, byteCount: 0)
        try file.write([UInt8](repeating: 7, count: 8 * 4096), at: 0)
        let (mapped, other) = (try MappedFile(file.path), try MappedFile(file.path))
        #expect(mapped.address(of: 5 * 4096).load(as: UInt8.self) == 7)
        try mapped.requireUnchanged()
        try file.handle.truncate(atOffset: 4096)
        #expect(mapped.address(of: 5 * 4096).load(as: UInt8.self) == 0)
        #expect(mapped.address(of: 0).load(as: UInt8.self) == 0, "all of it is replaced")
        #expect(other.address(of: 0).load(as: UInt8.self) == 7, "another's mapping is another's")
        let words = "\(file.path) has changed its size from 32768 to 4096 bytes; serve a file that nobody changes"
        for file in [mapped, other] {
            let error = #expect(throws: FileChanged.self) { try file.requireUnchanged() }
            #expect(error?.description == words)
        }
    }
}
