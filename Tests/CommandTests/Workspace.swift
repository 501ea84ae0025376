import Foundation

/// A folder of a test's own, gone when the test is.
final class Workspace: Sendable {
    let path: String

    init() throws {
        // Short, since socket paths have at most 107 bytes.
        path = "/tmp/pft-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
    }

    deinit {
        // Nobody is left to be told of a folder that cannot be removed.
        try? FileManager.default.removeItem(atPath: path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// A file of the fixtures' folder.
    static func fixture(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/\(name)").path
    }

    /// Compiles a C program of the fixtures' folder.
    func compile(_ fixture: String) throws -> String {
        let source = Workspace.fixture("\(fixture).c")
        let program = file(fixture)
        let compiled = try Executable.run("/usr/bin/cc", ["-O2", "-pthread", source, "-o", program])
        guard compiled.status == 0 else { throw TestFailure("cannot compile \(source): \(compiled.errors)") }
        return program
    }
}
