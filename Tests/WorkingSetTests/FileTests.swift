import Foundation
import Testing
import WorkingSet

@Suite(.timeLimit(.minutes(1)))
struct FileTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ws-\(UUID())").path

    init() throws { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false) }

    private func remove() { try? FileManager.default.removeItem(atPath: folder) }

    private func reason(_ name: String) -> String? {
        do throws(WorkingSetError) {
            _ = try WorkingSet(contentsOf: "\(folder)/\(name)")
            return nil
        } catch {
            return error.description
        }
    }

    @Test func `a record is written whole, in the place of another, and leaves nothing else`() throws {
        defer { remove() }
        let path = "\(folder)/a.ws"
        for set in [try Samples.example(), try Samples.set(1)] {
            try set.write(to: path)
            #expect(try WorkingSet(contentsOf: path) == set)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["a.ws"])
    }

    @Test func `a bad file is refused in a line that names it`() throws {
        defer { remove() }
        #expect(reason("none") == "cannot open \(folder)/none: No such file or directory")
        #expect(reason("")?.hasPrefix("cannot open \(folder)/: ") == false)
        try Data("PGWS".utf8).write(to: URL(fileURLWithPath: "\(folder)/short"))
        #expect(
            reason("short")
                == "cannot use \(folder)/short as a working set: it is cut short: it has 4 bytes, less than any record"
        )
        // A hole takes no space, but would take memory.
        try Data().write(to: URL(fileURLWithPath: "\(folder)/large"))
        let large = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(folder)/large"))
        try large.truncate(atOffset: 1 << 40)
        #expect(
            reason("large") == "cannot read \(folder)/large: File too large; give a file of at most 33554468 bytes"
        )
        try large.truncate(atOffset: 33_554_468)
        #expect(reason("large")?.contains("does not begin with 'PGWS'") == true)
    }

    @Test func `a record is not written in the place of what is no file`() throws {
        defer { remove() }
        let set = try Samples.example()
        try FileManager.default.createDirectory(atPath: "\(folder)/sub", withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: "\(folder)/link", withDestinationPath: "/dev/null")
        for name in ["sub", "sub/", "link", "sub/..", "none/a.ws", ""] {
            #expect(throws: WorkingSetError.self, "\(name)") { try set.write(to: "\(folder)/\(name)") }
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["link", "sub"])
        #expect(throws: WorkingSetError("cannot write '': Invalid argument; give the name of a file")) {
            try set.write(to: "")
        }
    }
}
