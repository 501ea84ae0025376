import Foundation

/// A temporary folder of one test, removed with the object.
final class Site: Sendable {
    let folder: String

    init() throws {
        // The path must be short, since socket paths have at most 107 bytes.
        folder = "/tmp/pff-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(
            atPath: folder,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
    }

    deinit {
        // An error cannot be reported from here; the folder then stays.
        try? FileManager.default.removeItem(atPath: folder)
    }

    func file(_ name: String) -> String { "\(folder)/\(name)" }
}
