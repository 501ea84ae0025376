import Glibc
import OwnThread
import Synchronization
import SystemPackage
import Testing

@testable import LinuxSystem

/// Sockets in folders that belong to somebody else, as in the jail of a microVM.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SocketFolderTests {
    private static let isRoot = geteuid() == 0
    private static let jailed = SocketAccess(owner: SocketAccess.Owner(user: 1234, group: 1235), mode: 0o640)

    /// A temporary folder, which is removed with what is in it.
    private final class Folder {
        let path: String

        init() throws {
            var template = Array("/tmp/folder-tests-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw CannotPrepare(what: "a directory") }
            path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        }

        deinit { Folder.remove(path) }

        func make(_ name: String, owner: uid_t = geteuid(), mode: mode_t = 0o755) throws -> String {
            let folder = "\(path)/\(name)"
            guard mkdir(folder, mode) == 0, chmod(folder, mode) == 0,
                owner == geteuid() || chown(folder, owner, owner) == 0
            else { throw CannotPrepare(what: folder) }
            return folder
        }

        static func names(_ path: String) -> [String] {
            guard let listing = try? Directory(path).names() else { return [] }
            return listing.filter { $0 != "." && $0 != ".." }.sorted()
        }

        private static func remove(_ path: String) {
            for name in names(path) { remove("\(path)/\(name)") }
            if Glibc.unlink(path) != 0 { rmdir(path) }
        }
    }

    private func entry(_ path: String) -> stat? {
        var status = stat()
        return lstat(path, &status) == 0 ? status : nil
    }

    private func refusal(_ path: String, _ access: SocketAccess = .ownUser) throws -> String {
        "\(try #require(throws: SystemError.self) { _ = try Listener(at: .unix(path: path), access) })"
    }

    @Test(.enabled(if: isRoot, "needs root"), arguments: [SocketAccess.ownUser, jailed, SocketAccess(mode: 0o666)])
    func `a socket has the owner and the mode that were asked for`(access: SocketAccess) throws {
        let folder = try Folder()
        let before = umask(0o077)
        defer { umask(before) }
        let listener = try Listener(at: .unix(path: "\(folder.path)/s"), access)
        let status = try #require(entry("\(folder.path)/s"))
        #expect(status.st_mode == S_IFSOCK | access.mode)
        #expect(status.st_uid == access.owner?.user ?? geteuid())
        #expect(status.st_gid == access.owner?.group ?? getegid())
        #expect(Folder.names(folder.path) == ["s"])
        listener.file?.remove()
        #expect(Folder.names(folder.path) == [])
    }

    #if DEBUG
    @Test(.enabled(if: isRoot, "needs root"))
    func `a socket that is given away never has its name with another owner or mode, or before it listens`() throws {
        let folder = try Folder()
        let path = "\(folder.path)/s"
        let wrong = Mutex<[String]>([])
        let seen = Counts()
        let listener = try ForcedErrno.asking({ [self] call in
            guard let status = entry(path) else { return nil }
            seen.add(1)
            let isRight = status.st_mode == S_IFSOCK | 0o640 && status.st_uid == 1234 && status.st_gid == 1235
            let listens = (try? StreamSocket(connectingTo: .unix(path: path))) != nil
            if !isRight || !listens { wrong.withLock { $0.append("\(call)") } }
            return nil
        }) { try SharedListener(.unix(path: path), Self.jailed) }
        #expect(wrong.withLock(\.self) == [])
        // The name exists when the calls come that remove the hidden folder.
        #expect(seen.sum > 0)
        #expect(Folder.names(folder.path) == ["s"])
        withExtendedLifetime(listener) {}
    }

    @Test(arguments: [SystemCall.bind, .fchmodat, .listen, .linkat])
    func `a socket that cannot be made leaves nothing behind`(call: SystemCall) throws {
        let folder = try Folder()
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([call: [.noSpace]]) {
                _ = try SharedListener(.unix(path: "\(folder.path)/s"), SocketAccess(mode: 0o660))
            }
        }
        #expect(error.errno == .noSpace)
        #expect(Folder.names(folder.path) == [])
    }
    #endif

    @Test(.enabled(if: !isRoot, "needs another user than root"))
    func `a socket cannot be given away without the right to do so`() throws {
        let folder = try Folder()
        #expect(
            try refusal("\(folder.path)/s", Self.jailed).hasSuffix(
                "run as root, or name this user and one of its groups"
            )
        )
        #expect(Folder.names(folder.path) == [])
    }

    @Test(arguments: [SocketAccess.ownUser, SocketAccess(mode: 0o660)])
    func `whatever is at the path and is no socket stays, and the path is refused`(access: SocketAccess) throws {
        let folder = try Folder()
        let other = "\(folder.path)/other"
        let listener = try Listener(at: .unix(path: other))
        let obstacles: [(kind: String, make: (String) -> CInt)] = [
            ("a file that is no socket", { close(open($0, O_CREAT | O_WRONLY, 0o600)) }),
            ("a symbolic link", { symlink("nowhere", $0) }), ("a symbolic link", { symlink(other, $0) }),
            ("a FIFO", { mkfifo($0, 0o600) }), ("a folder", { mkdir($0, 0o700) }),
        ]
        for (index, obstacle) in obstacles.enumerated() {
            let path = "\(folder.path)/\(index)"
            #expect(obstacle.make(path) == 0)
            let before = try #require(entry(path))
            #expect(
                try refusal(path, access)
                    == "cannot listen at unix:\(path): File exists; \(obstacle.kind) is there; choose another path"
            )
            #expect(entry(path)?.st_ino == before.st_ino)
        }
        #expect(Folder.names(folder.path) == ["0", "1", "2", "3", "4", "other"])
        withExtendedLifetime(listener.address) {}
    }

    @Test(arguments: [SocketAccess.ownUser, SocketAccess(mode: 0o660)])
    func `a stale socket is replaced, and one with a listener is refused`(access: SocketAccess) throws {
        let folder = try Folder()
        let address = SocketAddress.unix(path: "\(folder.path)/s")
        do {
            let ended = try Listener(at: address)
            ended.shutdown()
        }
        let listener = try Listener(at: address, access)
        #expect(try StreamSocket(connectingTo: address).peer == "\(address)")
        #expect(
            try refusal("\(folder.path)/s", access)
                == "cannot listen at \(address): Address already in use; another process listens there; choose another path"
        )
        #expect(try StreamSocket(connectingTo: address).peer == "\(address)")
        #expect(Folder.names(folder.path) == ["s"])
        withExtendedLifetime(listener.address) {}
    }

    @Test func `a socket whose path is longer than an address can be served, found and removed`() throws {
        let folder = try Folder()
        var path = folder.path
        while path.utf8.count < 400 {
            path += "/" + String(repeating: "x", count: 60)
            #expect(mkdir(path, 0o755) == 0)
        }
        let address = SocketAddress.unix(path: "\(path)/" + String(repeating: "s", count: 120))
        let listener = try Listener(at: address)
        #expect(listener.address == address)
        let client = try StreamSocket(connectingTo: address)
        #expect(client.peer == "\(address)")
        let accepted = try SocketPair.accept(from: listener)
        #expect(accepted.socket.peer == "process \(getpid())")
        #expect(entry("\(path)/" + String(repeating: "s", count: 120))?.st_mode == S_IFSOCK | 0o600)
        #expect(try refusal("\(path)/" + String(repeating: "s", count: 120)).contains("another process listens there"))
        listener.file?.remove()
        #expect(Folder.names(path) == [])
    }

    @Test func `a name that no file can have is refused`() throws {
        let folder = try Folder()
        for name in [String(repeating: "x", count: 256), "..", "sub/../.."] {
            _ = try refusal("\(folder.path)/\(name)")
        }
        #expect(try refusal("\(folder.path)/").hasSuffix("name a file in the folder"))
        #expect(Folder.names(folder.path) == [])
    }

    @Test func `links of this user are followed in folders that no other user can change`() throws {
        let folder = try Folder()
        _ = try folder.make("real")
        #expect(symlink("real", "\(folder.path)/relative") == 0)
        #expect(symlink("\(folder.path)/relative/../real", "\(folder.path)/absolute") == 0)
        for name in ["relative", "absolute"] {
            let listener = try Listener(at: .unix(path: "\(folder.path)/\(name)/s"))
            #expect(Folder.names("\(folder.path)/real") == ["s"])
            listener.file?.remove()
            #expect(Folder.names("\(folder.path)/real") == [])
        }
        #expect(symlink("loop", "\(folder.path)/loop") == 0)
        #expect(try refusal("\(folder.path)/loop/s").contains("Too many levels of symbolic links"))
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func `a link that another user can change is not followed`() throws {
        let folder = try Folder()
        let target = try folder.make("target")
        // A folder of another user, one that every user can change, and one with the sticky bit.
        let places: [(owner: uid_t, mode: mode_t, linkOwner: uid_t)] = [
            (1234, 0o755, 0), (0, 0o777, 0), (0, 0o775, 0), (0, 0o1777, 1234),
        ]
        for (index, place) in places.enumerated() {
            let jail = try folder.make("jail\(index)", owner: place.owner, mode: place.mode)
            #expect(symlink(target, "\(jail)/run") == 0)
            #expect(lchown("\(jail)/run", place.linkOwner, place.linkOwner) == 0)
            for access in [SocketAccess.ownUser, Self.jailed] {
                let error = try refusal("\(jail)/run/s", access)
                #expect(
                    error.hasSuffix("'run' is a link that another user can change; name each folder on the way itself")
                )
            }
        }
        #expect(Folder.names(target) == [])
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func `a path does not lead out of another user's folder`() throws {
        let folder = try Folder()
        let jail = try folder.make("jail", owner: 1234)
        #expect(mkdir("\(jail)/sub", 0o755) == 0)
        #expect(try refusal("\(jail)/sub/../../s").contains("'..' leads out of a folder that another user can change"))
        #expect(Folder.names(folder.path) == ["jail"])
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func `a socket in another user's folder is found there, and removed there after the folder was replaced`() throws {
        let folder = try Folder()
        let jail = try folder.make("jail", owner: 1234)
        let listener = try Listener(at: .unix(path: "\(jail)/s"), Self.jailed)
        #expect(try StreamSocket(connectingTo: listener.address).peer == "unix:\(jail)/s")
        let moved = "\(folder.path)/moved"
        #expect(rename(jail, moved) == 0)
        #expect(mkdir(jail, 0o755) == 0 && close(open("\(jail)/s", O_CREAT | O_WRONLY, 0o600)) == 0)
        listener.file?.remove()
        #expect(Folder.names(moved) == [])
        #expect(Folder.names(jail) == ["s"])
    }
}
