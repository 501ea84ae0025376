import TestProcess

/// A process of its own that does something with sockets.
enum Python {
    /// Runs statements with `s`, a Unix socket that is not connected.
    ///
    /// - Returns: the process's number.
    static func run(_ statements: String) throws -> Int32 {
        let process = try TestProcess(
            "/usr/bin/env",
            ["python3", "-c", "import array, os, socket; s = socket.socket(socket.AF_UNIX); \(statements)"]
        )
        guard process.wait()?.status == 0 else { throw Missing(what: "a process that worked") }
        return process.pid
    }
}
