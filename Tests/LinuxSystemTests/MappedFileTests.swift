import Foundation
import LinuxSystem
import OwnThread
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct MappedFileTests {
    /// A temporary file of one test.
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
            // An error cannot be reported from here; the file then stays.
            try? FileManager.default.removeItem(atPath: path)
        }
    }

    @Test(arguments: ["/tmp", "/dev/shm"])
    func `holes are found with page precision`(folder: String) throws {
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

    @Test func `a file without holes has no hole, and a file of only holes has no data`() throws {
        let full = try Scratch(byteCount: 0)
        try full.write([UInt8](repeating: 0, count: 64 * 4096), at: 0)
        let mapped = try MappedFile(full.path)
        #expect(!(0..<64).contains { mapped.isHole(at: $0 * 4096, byteCount: 4096) })
        let empty = try Scratch(byteCount: 1 << 34)
        #expect(try MappedFile(empty.path).isHole(at: 0, byteCount: 1 << 34))
    }

    @Test func `a read-only file can be mapped, and the mapping is not writable`() async throws {
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
        #expect(
            error?.description.hasSuffix("it has no whole page of 4096 bytes; give the file of a guest's memory")
                == true
        )
    }

    @Test(arguments: ["/tmp", "/dev/shm"])
    func `reading a truncated part of a mapping gives zeros and is reported`(folder: String) throws {
        let file = try Scratch(in: folder, byteCount: 0)
        try file.write([UInt8](repeating: 7, count: 8 * 4096), at: 0)
        let (mapped, other) = (try MappedFile(file.path), try MappedFile(file.path))
        #expect(mapped.address(of: 5 * 4096).load(as: UInt8.self) == 7)
        try mapped.requireUnchanged()
        try file.handle.truncate(atOffset: 4096)
        #expect(mapped.address(of: 5 * 4096).load(as: UInt8.self) == 0)
        #expect(mapped.address(of: 0).load(as: UInt8.self) == 0, "the whole mapping is replaced")
        #expect(other.address(of: 0).load(as: UInt8.self) == 7, "another mapping of the file is not")
        let words = "\(file.path) has changed its size from 32768 to 4096 bytes; serve a file that nobody changes"
        for file in [mapped, other] {
            let error = #expect(throws: FileChanged.self) { try file.requireUnchanged() }
            #expect(error?.description == words)
        }
    }

    /// What happens to a file while it is mapped, and whether the kernel can tell that nobody has written to it.
    enum Event: CaseIterable {
        case touched, renamed, readByAnother
        case written, opened, openStill, truncated, mapped

        var isHarmless: Bool {
            switch self {
            case .touched, .renamed, .readByAnother: true
            case .written, .opened, .openStill, .truncated, .mapped: false
            }
        }

        /// Lets the event happen, and returns what must outlive the check.
        func happen(to path: String) throws -> AnyObject? {
            let url = URL(fileURLWithPath: path)
            switch self {
            case .touched, .openStill: break
            case .renamed:
                try FileManager.default.moveItem(atPath: path, toPath: "\(path)-moved")
                try FileManager.default.moveItem(atPath: "\(path)-moved", toPath: path)
            case .readByAnother: _ = try Data(contentsOf: url)
            case .written:
                let handle = try FileHandle(forWritingTo: url)
                try handle.write(contentsOf: [1])
                try handle.close()
            case .opened: try FileHandle(forUpdating: url).close()
            case .truncated: try #require(truncate(path, 8192) == 0 && truncate(path, 16384) == 0)
            case .mapped:
                let mapping = try Mapping(sharingFileAt: path)
                mapping.base.storeBytes(of: 1, as: UInt8.self)
            }
            try #require(utimes(path, nil) == 0)
            return self == .openStill ? try FileHandle(forUpdating: url) : nil
        }
    }

    @Test(arguments: Event.allCases, ["/tmp", "/dev/shm"])
    func `the kernel proves that nobody has written to a file`(event: Event, folder: String) throws {
        let file = try Scratch(in: folder, byteCount: 16384)
        try file.handle.close()
        let mapped = try MappedFile(file.path)
        let before = mapped.version
        let kept = try event.happen(to: file.path)
        #expect(throws: FileChanged.self) { try mapped.requireUnchanged() }
        var told: [Bool] = []
        try mapped.renew { isWitnessed in
            told.append(isWitnessed)
            return .same
        }
        #expect(told == [event.isHarmless])
        try mapped.requireUnchanged()
        #expect(mapped.version.changed > before.changed && mapped.version.inode == before.inode)
        withExtendedLifetime(kept) {}
    }

    @Test func `a change while the content is compared begins the comparison anew`() throws {
        let file = try Scratch(byteCount: 4096)
        try file.handle.close()
        let mapped = try MappedFile(file.path)
        try #require(utimes(file.path, nil) == 0)
        var told: [Bool] = []
        try mapped.renew { isWitnessed in
            told.append(isWitnessed)
            if told.count == 1 {
                let descriptor = open(file.path, O_WRONLY)
                write(descriptor, "x", 1)
                close(descriptor)
            }
            return .same
        }
        #expect(told == [true, false])
        try mapped.requireUnchanged()
    }

    @Test func `a file whose times never stop changing is given up`() throws {
        let file = try Scratch(byteCount: 4096)
        let mapped = try MappedFile(file.path)
        try file.write([1], at: 0)
        var count = 0
        let error = #expect(throws: FileChanged.self) {
            try mapped.renew { _ in
                count += 1
                utimes(file.path, nil)
                return .same
            }
        }
        #expect(count == 8)
        #expect(error?.description == "\(file.path) was modified; serve a file that nobody changes")
    }

    @Test func `a file of another content, or of none that is proved, is given up with its reason`() throws {
        let file = try Scratch(byteCount: 4096)
        let mapped = try MappedFile(file.path)
        try file.write([1], at: 0)
        for proof in [MappedFile.Proof.other, .none] {
            let error = #expect(throws: FileChanged.self) { try mapped.renew { _ in proof } }
            #expect(error?.description == "\(file.path) was modified; serve a file that nobody changes")
        }
    }
}
