import CShims
import Glibc
import SystemPackage

extension SocketFolder {
    /// What the socket's file is now; nil if there is none.
    var status: stat? { SocketFolder.status(of: name, in: descriptor) }

    private static func status(of name: String, in folder: borrowing OwnedDescriptor) -> stat? {
        var status = stat()
        let raw = folder.raw
        // A file that cannot be inspected is not this process's.
        let found = try? kernel(.fstatat) { orErrno(fstatat(raw, name, &status, AT_SYMLINK_NOFOLLOW)) }
        return found == nil ? nil : status
    }

    /// Removes the socket's file.
    func unlink() {
        // Another process may have removed the file already.
        _ = try? kernel(.unlinkat) { orErrno(unlinkat(descriptor.raw, name, 0)) }
    }

    /// Binds a socket to its path, with mode 0600, in a folder that only root and this user can change.
    ///
    /// - Returns: what the file is.
    func bind(_ socket: borrowing OwnedDescriptor, _ backlog: CInt) throws(SystemError) -> stat {
        let raw = socket.raw
        do throws(Errno) {
            // bind(2) gives the file the mode of the unbound socket.
            _ = try kernel(.fchmod) { orErrno(fchmod(raw, 0o600)) }
            _ = try kernel(.bind) { shim_bind_unix(raw, path) }
        } catch .addressInUse {
            try removeStale()
            do throws(Errno) {
                _ = try kernel(.bind) { shim_bind_unix(raw, path) }
            } catch {
                throw SocketFolder.inUse(error, path)
            }
        } catch {
            throw SocketFolder.error(error, path)
        }
        try listen(raw, backlog)
        var file = stat()
        _ = try attempt(SocketFolder.action(path)) { () throws(Errno) in
            try kernel(.fstatat) { orErrno(fstatat(descriptor.raw, name, &file, AT_SYMLINK_NOFOLLOW)) }
        }
        return file
    }

    /// Binds a socket in a folder that no other user can enter, and gives it its name once it is complete.
    ///
    /// - Returns: what the file is.
    func bindUnseen(
        _ socket: borrowing OwnedDescriptor,
        _ access: SocketAccess,
        _ backlog: CInt
    ) throws(SystemError) -> stat {
        let unseen = try makeUnseenFolder()
        let (raw, folder) = (socket.raw, unseen.descriptor.raw)
        defer {
            // If the folder cannot be removed, it stays behind empty.
            _ = try? kernel(.unlinkat) { orErrno(unlinkat(folder, "socket", 0)) }
            // As above.
            _ = try? kernel(.unlinkat) { orErrno(unlinkat(descriptor.raw, unseen.name, AT_REMOVEDIR)) }
        }
        do throws(Errno) {
            _ = try kernel(.bind) { shim_bind_unix(raw, "/proc/self/fd/\(folder)/socket") }
        } catch {
            throw SocketFolder.error(error, path)
        }
        if let owner = access.owner {
            _ = try attempt(
                "give \(SocketAddress.unix(path: path)) to user \(owner.user) and group \(owner.group)",
                advice: "run as root, or name this user and one of its groups"
            ) { () throws(Errno) in
                try kernel(.fchownat) {
                    orErrno(fchownat(folder, "socket", owner.user, owner.group, AT_SYMLINK_NOFOLLOW))
                }
            }
        }
        var file = stat()
        _ = try attempt(SocketFolder.action(path)) { () throws(Errno) in
            // A change of the owner may clear bits of the mode, so that the mode comes last.
            _ = try kernel(.fchmodat) { orErrno(fchmodat(folder, "socket", access.mode, 0)) }
            return try kernel(.fstatat) { orErrno(fstatat(folder, "socket", &file, AT_SYMLINK_NOFOLLOW)) }
        }
        // A process that finds the file finds a socket that listens, and not one that looks stale.
        try listen(raw, backlog)
        do throws(Errno) {
            try name(unseen.descriptor)
        } catch .fileExists {
            try removeStale()
            do throws(Errno) {
                try name(unseen.descriptor)
            } catch {
                throw SocketFolder.inUse(error, path)
            }
        } catch {
            throw SocketFolder.error(error, path)
        }
        return file
    }

    /// Gives the socket of the unseen folder its name, which must be free.
    private func name(_ unseen: borrowing OwnedDescriptor) throws(Errno) {
        let (from, to) = (unseen.raw, descriptor.raw)
        _ = try kernel(.linkat) { orErrno(linkat(from, "socket", to, name, 0)) }
    }

    private func listen(_ raw: CInt, _ backlog: CInt) throws(SystemError) {
        _ = try attempt(SocketFolder.action(path)) { () throws(Errno) in
            try kernel(.listen) { orErrno(Glibc.listen(raw, backlog)) }
        }
    }

    private static func inUse(_ errno: Errno, _ path: String) -> SystemError {
        guard errno == .fileExists || errno == .addressInUse else { return error(errno, path) }
        return SystemError(
            action(path),
            .addressInUse,
            advice: "another process listens there; choose another path"
        )
    }

    private struct UnseenFolder: ~Copyable {
        let descriptor: OwnedDescriptor
        let name: String
    }

    /// Makes a folder that only this user can enter.
    private func makeUnseenFolder() throws(SystemError) -> UnseenFolder {
        let hidden = ".pageferry-\(UInt64.random(in: 0...UInt64.max))"
        do throws(Errno) {
            _ = try kernel(.mkdirat) { orErrno(mkdirat(descriptor.raw, hidden, 0o700)) }
            let opened = OwnedDescriptor(
                try kernel(.openat) { shim_open_entry(descriptor.raw, hidden, O_DIRECTORY | O_NOFOLLOW) }
            )
            var status = stat()
            _ = try kernel(.fstat) { orErrno(fstat(opened.raw, &status)) }
            // A user who may change the outer folder may have replaced the new folder by another one.
            guard status.st_uid == geteuid(), status.st_mode & 0o077 == 0 else { throw .notPermitted }
            return UnseenFolder(descriptor: opened, name: hidden)
        } catch {
            throw SocketFolder.error(error, path)
        }
    }

    /// Removes a socket file at which no process listens.
    ///
    /// - Throws: a ``SystemError`` if something is there that is no socket.
    private func removeStale() throws(SystemError) {
        let found: OwnedDescriptor
        do throws(Errno) {
            found = OwnedDescriptor(try kernel(.openat) { shim_open_entry(descriptor.raw, name, O_NOFOLLOW) })
        } catch .noSuchFileOrDirectory {
            return
        } catch {
            throw SocketFolder.error(error, path)
        }
        var status = stat()
        let raw = found.raw
        _ = try attempt(SocketFolder.action(path)) { () throws(Errno) in
            try kernel(.fstat) { orErrno(fstat(raw, &status)) }
        }
        // Connecting to a plain file is refused too, and must not be mistaken for connecting to a stale socket.
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw SystemError(
                SocketFolder.action(path),
                .fileExists,
                advice: "\(SocketFolder.kind(status)) is there; choose another path"
            )
        }
        // A blocking socket would wait for a listener whose queue is full.
        let probe = try Listener.socket(AF_UNIX, isBlocking: false)
        do throws(Errno) {
            // Connects to the file that was inspected, whatever has its name now.
            _ = try kernel(.connect) { shim_connect_unix(probe.raw, "/proc/self/fd/\(raw)") }
        } catch .connectionRefused {
            guard let now = self.status, now.st_ino == status.st_ino, now.st_dev == status.st_dev else { return }
            unlink()
        } catch {
            // Whatever else is there, the caller fails with the reason.
        }
    }

    private static func kind(_ status: stat) -> String {
        switch status.st_mode & S_IFMT {
        case S_IFDIR: "a folder"
        case S_IFLNK: "a symbolic link"
        case S_IFIFO: "a FIFO"
        default: "a file that is no socket"
        }
    }
}
