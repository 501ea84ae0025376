import Foundation

/// A process of its own that does something with sockets.
enum Python {
    /// Runs statements with `s`, a Unix socket that is not connected.
    ///
    /// - Returns: the process's number.
    static func run(_ statements: String) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "python3", "-c", "import array, os, socket; s = socket.socket(socket.AF_UNIX); \(statements)",
        ]
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Missing(what: "a process that worked") }
        return process.processIdentifier
    }
}
