import Foundation

/// A temporary folder of one test, removed with the object.
final class Workspace: Sendable {
    let path: String

    init() throws {
        // The path must be short, since socket paths have at most 107 bytes.
        path = "/tmp/pft-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
    }

    deinit {
        // An error cannot be reported from here; the folder then stays.
        try? FileManager.default.removeItem(atPath: path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// The path of a file in the folder of fixtures.
    static func fixture(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/\(name)").path
    }

    /// Compiles a C program from the folder of fixtures.
    func compile(_ fixture: String, _ options: String...) throws -> String {
        let source = Workspace.fixture("\(fixture).c")
        let program = file(fixture)
        let compiled = try Executable.run("/usr/bin/cc", ["-O2", "-pthread", source, "-o", program] + options)
        guard compiled.status == 0 else { throw TestFailure("cannot compile \(source): \(compiled.errors)") }
        return program
    }
}
