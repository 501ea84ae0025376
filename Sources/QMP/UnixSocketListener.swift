internal import Glibc

/// A listening Unix socket that only its owner may connect to.
struct UnixSocketListener {
    /// Non-blocking, close-on-exec, listening.
    ///
    /// Whoever takes it closes it.
    let descriptor: CInt
    /// Where it can be reached.
    let path: String
    private let device: dev_t
    private let inode: ino_t

    /// Binds a socket of mode 0600 and lets it listen.
    ///
    /// A socket file that nobody listens on is replaced. Anything else in its place is left alone.
    ///
    /// - Throws: the reason.
    init(path: String) throws(QMPConnectionError) {
        func failure(_ reason: String) -> QMPConnectionError {
            QMPConnectionError(.listen, .unix(path: path), reason: reason)
        }
        guard var address = sockaddr_un(path: path) else {
            throw failure("the path must have 1 to \(sockaddr_un.maximumPathBytes) bytes")
        }
        let descriptor = Self.makeSocket()
        guard descriptor >= 0 else { throw failure(reason(ofErrno: errno)) }
        // The mode of an unbound socket becomes that of the file that bind makes: nobody else can connect, not even in
        // the moment before a chmod of the file.
        guard fchmod(descriptor, 0o600) == 0 else {
            defer { close(descriptor) }
            throw failure(reason(ofErrno: errno))
        }
        var status = address.withSockaddr { bind(descriptor, $0, $1) }
        if status != 0, errno == EADDRINUSE {
            if let obstacle = Self.removeStaleSocket(&address, path) {
                close(descriptor)
                throw failure(obstacle)
            }
            status = address.withSockaddr { bind(descriptor, $0, $1) }
        }
        guard status == 0 else {
            let code = errno
            close(descriptor)
            throw failure(code == EADDRINUSE ? "another process listens there" : reason(ofErrno: code))
        }
        var file = stat()
        // Listening at once, before NIO repeats it, so that nobody takes the new file for a stale one.
        guard listen(descriptor, 128) == 0, lstat(path, &file) == 0 else {
            let code = errno
            close(descriptor)
            unlink(path)
            throw failure(reason(ofErrno: code))
        }
        self.descriptor = descriptor
        self.path = path
        device = file.st_dev
        inode = file.st_ino
    }

    /// Removes the socket file, unless another one has taken its place.
    ///
    /// To be called before the descriptor is closed: an open socket holds its inode, whose number is then no other's.
    func removeFile() {
        var file = stat()
        guard lstat(path, &file) == 0, file.st_dev == device, file.st_ino == inode else { return }
        unlink(path)
    }

    /// Returns what keeps the path from being bound, nil if nothing does any more.
    private static func removeStaleSocket(_ address: inout sockaddr_un, _ path: String) -> String? {
        var file = stat()
        guard lstat(path, &file) == 0 else { return errno == ENOENT ? nil : reason(ofErrno: errno) }
        // Connecting to a plain file is refused too: it must not be mistaken for a stale socket.
        guard file.st_mode & S_IFMT == S_IFSOCK else { return "a file that is no socket is there" }
        let probe = makeSocket()
        guard probe >= 0 else { return reason(ofErrno: errno) }
        defer { close(probe) }
        let status = address.withSockaddr { connect(probe, $0, $1) }
        switch status == 0 ? 0 : errno {
        case ECONNREFUSED: return unlink(path) == 0 || errno == ENOENT ? nil : reason(ofErrno: errno)
        case ENOENT: return nil
        case 0, EAGAIN, EPROTOTYPE: return "another process listens there"
        case let code: return reason(ofErrno: code)
        }
    }

    private static func makeSocket() -> CInt {
        let type = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        return socket(AF_UNIX, CInt(bitPattern: type), 0)
    }
}

/// What an error number means, in words.
func reason(ofErrno code: CInt) -> String {
    String(cString: strerror(code))
}

extension sockaddr_un {
    /// Without the zero byte that ends the path.
    fileprivate static var maximumPathBytes: Int { MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1 }

    /// Nil if the path is empty or too long.
    fileprivate init?(path: String) {
        self.init()
        sun_family = sa_family_t(AF_UNIX)
        guard (1...Self.maximumPathBytes).contains(path.utf8.count) else { return nil }
        withUnsafeMutableBytes(of: &sun_path) { $0.copyBytes(from: path.utf8) }
    }

    fileprivate mutating func withSockaddr<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        withUnsafePointer(to: &self) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
