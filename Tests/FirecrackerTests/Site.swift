import Foundation

/// A folder of a test's own, gone when the test is.
final class Site: Sendable {
    let folder: String

    init() throws {
        // Short, since socket paths have at most 107 bytes.
        folder = "/tmp/pff-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(
            atPath: folder,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
    }

    deinit {
        // Nobody is left to be told of a folder that cannot be removed.
        try? FileManager.default.removeItem(atPath: folder)
    }

    func file(_ name: String) -> String { "\(folder)/\(name)" }
}
