import Foundation
import LinuxSystem
import OwnThread
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct DirectoryTests {
    private let path = FileManager.default.temporaryDirectory.appendingPathComponent("directory-\(UUID())").path

    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false) }

    private func remove() { try? FileManager.default.removeItem(atPath: path) }

    @Test func `all names are listed, each time again`() throws {
        defer { remove() }
        let directory = try Directory(path)
        let names = (0..<1000).map { "\($0)-\(String(repeating: "n", count: 100))" }
        for name in names { try Data().write(to: URL(fileURLWithPath: "\(path)/\(name)")) }
        for _ in 0..<2 { #expect(try directory.names().sorted() == (names + [".", ".."]).sorted()) }
    }

    @Test func `a file is published once, whole, and leaves nothing else`() throws {
        defer { remove() }
        let directory = try Directory(path)
        #expect(try directory.publish([1, 2, 3], as: "file", by: "temporary") == .made)
        #expect(try directory.publish([4], as: "file", by: "temporary") == .exists)
        #expect(try directory.read("file", atMost: 10) == [1, 2, 3])
        #expect(try directory.read("file", atMost: 2) == [1, 2])
        #expect(try directory.read("other", atMost: 2) == nil)
        #expect(try FileManager.default.contentsOfDirectory(atPath: path) == ["file"])
    }

    @Test func `a symbolic link is not followed`() throws {
        defer { remove() }
        let directory = try Directory(path)
        try FileManager.default.createSymbolicLink(atPath: "\(path)/link", withDestinationPath: "/etc/passwd")
        #expect(try directory.read("link", atMost: 10) == [])
        try FileManager.default.createSymbolicLink(atPath: "\(path)/folder", withDestinationPath: "/etc")
        let advice = "it is a file or a link; use another name"
        #expect(throws: SystemError("open the directory \(path)/folder", .notDirectory, advice: advice)) {
            _ = try directory.directory("folder")
        }
    }

    @Test func `a file is replaced as a whole, or stays as it was`() throws {
        defer { remove() }
        let file = "\(path)/file"
        try WholeFile.replace(file, with: [1, 2, 3])
        try WholeFile.replace(file, with: [4])
        #expect(try WholeFile.read(file, atMost: 1) == [4])
        for call in [SystemCall.openat, .write, .fsync, .renameat] {
            #expect(throws: SystemError("write \(path)/file", .ioError)) {
                try ForcedErrno.with([call: [.ioError]]) { try WholeFile.replace(file, with: [5, 6]) }
            }
            #expect(try WholeFile.read(file, atMost: 10) == [4])
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: path) == ["file"])
    }

    @Test func `the check whether a file can be replaced changes nothing`() throws {
        defer { remove() }
        let file = "\(path)/file"
        try WholeFile.requireReplaceable(file)
        #expect(try FileManager.default.contentsOfDirectory(atPath: path).isEmpty)
        try WholeFile.replace(file, with: [1])
        try WholeFile.requireReplaceable(file)
        #expect(try WholeFile.read(file, atMost: 1) == [1])
        let advice = "give a file in a folder that you can write to"
        #expect(throws: SystemError("write \(path)/file", .readOnlyFileSystem, advice: advice)) {
            try ForcedErrno.with([.openat: [.readOnlyFileSystem]]) { try WholeFile.requireReplaceable(file) }
        }
        for other in [path, "/dev/null"] {
            #expect(throws: SystemError.self) { try WholeFile.requireReplaceable(other) }
        }
    }

    @Test func `a file that is longer than the limit is not read`() throws {
        defer { remove() }
        try WholeFile.replace("\(path)/file", with: [1, 2, 3])
        let advice = "give a file of at most 2 bytes"
        #expect(throws: SystemError("read \(path)/file", .fileTooLarge, advice: advice)) {
            try WholeFile.read("\(path)/file", atMost: 2)
        }
    }
}
