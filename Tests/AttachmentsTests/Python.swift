import TestProcess

/// A Python process that uses a Unix socket.
enum Python {
    /// Runs statements with `s`, a Unix socket that is not connected.
    ///
    /// - Returns: the process id.
    static func run(_ statements: String) throws -> Int32 {
        let process = try start(statements)
        guard process.wait()?.status == 0 else { throw Missing(what: "a process that worked") }
        return process.pid
    }

    /// Starts a process that runs statements with `s`, a Unix socket that is not connected.
    static func start(_ statements: String) throws -> TestProcess {
        try TestProcess(
            "/usr/bin/env",
            ["python3", "-c", "import array, os, socket; s = socket.socket(socket.AF_UNIX); \(statements)"]
        )
    }

    /// Statements that hand 4 pages over at a socket and then read an order.
    static func attaching(at path: String) -> String {
        "import ctypes, fcntl, struct; c = ctypes.CDLL(None); u = c.syscall(323, 0o4000); "
            + "fcntl.ioctl(u, 0xc018aa3f, struct.pack('QQQ', 0xaa, 0, 0)); c.mmap.restype = ctypes.c_size_t; "
            + "p = ctypes.c_size_t; m = c.mmap(None, p(4 * 4096), 3, 0x22, -1, p(0)); s.connect('\(path)'); "
            + "h = struct.pack('<IHHQQII', 0x4f484750, 1, 1, m, 4 * 4096, 4096, 0); "
            + "s.sendmsg([h], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [u]))]); s.recv(8); "
    }
}
