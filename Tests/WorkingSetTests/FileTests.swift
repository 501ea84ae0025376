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

    @Test func `a record replaces another as a whole, and no temporary file is left`() throws {
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
        #expect(reason("none") == "cannot open \(folder)/none: No such file or directory; check the path")
        #expect(reason("")?.hasPrefix("cannot open \(folder)/: ") == false)
        try Data("PGWS".utf8).write(to: URL(fileURLWithPath: "\(folder)/short"))
        #expect(
            reason("short")
                == "cannot use \(folder)/short as a working set: it is cut short: it has 4 bytes, less than any record; "
                + "give a file of pageferry attach --record"
        )
        // A hole takes no space on the disk, but reading it would take memory.
        try Data().write(to: URL(fileURLWithPath: "\(folder)/large"))
        let large = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(folder)/large"))
        try large.truncate(atOffset: 1 << 40)
        #expect(
            reason("large")
                == "cannot use \(folder)/large as a working set: it is no record of a working set: it is larger than any; "
                + "give a file of pageferry attach --record"
        )
        try large.truncate(atOffset: 33_554_468)
        #expect(reason("large")?.contains("does not begin with 'PGWS'") == true)
    }

    @Test func `a record does not replace anything but a file`() throws {
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
