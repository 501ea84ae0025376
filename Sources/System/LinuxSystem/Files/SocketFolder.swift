import CShims
import Glibc
import SystemPackage

/// The folder of a Unix socket's file, found without following links that another user may have placed.
///
/// A link on the way is followed only if it belongs to root or this user, and every folder before it is guarded: only
/// root and this user can replace what the folder has. From the first folder that is not guarded, each part of the path
/// must be a folder itself. The folder stays the same one when a part of its path is replaced later.
struct SocketFolder: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// The path of the socket, as it was given.
    let path: String
    /// The name of the socket's file in the folder.
    let name: String
    /// Whether only root and this user can replace what is in the folder, and the folders on the way to it.
    let isGuarded: Bool

    /// The most links that are followed, as in the kernel.
    private static let maxLinks = 40

    /// Opens the folder of a socket's path.
    init(of path: String) throws(SystemError) {
        try SocketAddress.checkPath(path, for: SocketFolder.action(path))
        var rest = SocketFolder.parts(path)
        guard let name = rest.popLast(), name != "..", name != ".", !path.hasSuffix("/") else {
            throw SystemError(SocketFolder.action(path), .isDirectory, advice: "name a file in the folder")
        }
        rest.reverse()
        var folder = try SocketFolder.open(path.hasPrefix("/") ? "/" : ".", for: path)
        var isGuarded = SocketFolder.isGuarded(try SocketFolder.status(of: folder, path))
        var links = 0
        while let part = rest.popLast() {
            guard part != ".." || isGuarded else {
                throw SocketFolder.refusal(path, "'..' leads out of a folder that another user can change")
            }
            let next = try SocketFolder.open(part, in: folder, O_NOFOLLOW, for: path)
            let status = try SocketFolder.status(of: next, path)
            guard status.st_mode & S_IFMT == S_IFLNK else {
                // Opening an entry of what is no folder fails with ENOTDIR.
                isGuarded = isGuarded && SocketFolder.isGuarded(status)
                folder = next
                continue
            }
            guard isGuarded, SocketFolder.isTrusted(status.st_uid) else {
                throw SocketFolder.refusal(path, "'\(part)' is a link that another user can change")
            }
            links += 1
            guard links <= SocketFolder.maxLinks else {
                throw SystemError(SocketFolder.action(path), .tooManySymbolicLinkLevels, advice: "check the path")
            }
            guard shim_file_system(next.raw) != SocketFolder.procfs else {
                // The text of a link such as /proc/PID/root is not where the link leads. The link may lead to where
                // another root directory applies.
                folder = try SocketFolder.open(part, in: folder, O_DIRECTORY, for: path)
                isGuarded = false
                continue
            }
            let target = try SocketFolder.target(of: next, path)
            if target.hasPrefix("/") {
                folder = try SocketFolder.open("/", for: path)
                isGuarded = SocketFolder.isGuarded(try SocketFolder.status(of: folder, path))
            }
            rest += SocketFolder.parts(target).reversed()
        }
        guard try SocketFolder.status(of: folder, path).st_mode & S_IFMT == S_IFDIR else {
            throw SocketFolder.error(.notDirectory, path)
        }
        descriptor = folder
        self.path = path
        self.name = name
        self.isGuarded = isGuarded
    }

    /// The magic number of procfs (PROC_SUPER_MAGIC).
    private static let procfs = 0x9fa0

    static func action(_ path: String) -> String { "listen at \(SocketAddress.unix(path: path))" }

    private static func parts(_ path: String) -> [String] {
        path.split(separator: "/").filter { $0 != "." }.map(String.init)
    }

    private static func isTrusted(_ user: uid_t) -> Bool { user == 0 || user == geteuid() }

    private static func isGuarded(_ folder: stat) -> Bool {
        // In a folder with the sticky bit, users can replace only what they own.
        isTrusted(folder.st_uid) && (folder.st_mode & 0o022 == 0 || folder.st_mode & S_ISVTX != 0)
    }

    private static func refusal(_ path: String, _ reason: String) -> SystemError {
        SystemError(action(path), .notPermitted, advice: "\(reason); name each folder on the way itself")
    }

    static func error(_ errno: Errno, _ path: String) -> SystemError {
        let advice =
            switch errno {
            case .noSuchFileOrDirectory: "create its folder with mkdir, or check the path"
            default: SystemError.advice(onShortage: errno) ?? "choose a folder that you can write to"
            }
        return SystemError(action(path), errno, advice: advice)
    }

    private static func open(_ folder: String, for path: String) throws(SystemError) -> OwnedDescriptor {
        do throws(Errno) {
            return OwnedDescriptor(try kernel(.open) { shim_open_place(folder, O_DIRECTORY) })
        } catch {
            throw SocketFolder.error(error, path)
        }
    }

    private static func open(
        _ part: String,
        in folder: borrowing OwnedDescriptor,
        _ flags: CInt,
        for path: String
    ) throws(SystemError) -> OwnedDescriptor {
        let raw = folder.raw
        do throws(Errno) {
            return OwnedDescriptor(try kernel(.openat) { shim_open_entry(raw, part, flags) })
        } catch {
            throw SocketFolder.error(error, path)
        }
    }

    private static func status(of place: borrowing OwnedDescriptor, _ path: String) throws(SystemError) -> stat {
        var status = stat()
        let raw = place.raw
        _ = try attempt(action(path)) { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        return status
    }

    private static func target(of link: borrowing OwnedDescriptor, _ path: String) throws(SystemError) -> String {
        var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let raw = link.raw
        let count = try attempt(action(path)) { () throws(Errno) in
            try kernel(.readlinkat) {
                bytes.withUnsafeMutableBytes { buffer in
                    let text = buffer.assumingMemoryBound(to: CChar.self)
                    guard let base = text.baseAddress else { return 0 }
                    return orErrno(readlinkat(raw, "", base, text.count))
                }
            }
        }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
