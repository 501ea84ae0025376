import Glibc
import TestProcess

/// A folder on a file system of its own that can be frozen.
///
/// A process that writes into the frozen store waits until the thaw, even after a SIGKILL. A process that reads does
/// not wait.
final class FreezableStore: Sendable {
    // FIFREEZE and FITHAW of linux/fs.h.
    private static let freezeRequest: UInt = 0xc004_5877
    private static let thawRequest: UInt = 0xc004_5878

    /// Whether this host has loop devices, and file systems that can be frozen.
    static let isPossible = (try? FreezableStore()) != nil

    let path: String
    private let workspace: Workspace
    private let descriptor: CInt
    /// A pipe whose other end is the cleaner's standard input.
    private let lifeline: TestPipe
    /// A process that thaws and unmounts the store when this object or this process is gone.
    private let cleaner: TestProcess

    /// Makes an image in a workspace of its own, and mounts it.
    init() throws {
        workspace = try Workspace()
        let image = workspace.file("image")
        path = workspace.file("store")
        guard mkdir(path, 0o700) == 0 else { throw TestFailure("cannot make \(path): errno \(errno)") }
        try Host.check("/usr/bin/truncate", ["-s", "16M", image])
        // A journal would make each record more expensive.
        try Host.check("/usr/sbin/mkfs.ext4", ["-q", "-b", "1024", "-O", "^has_journal", image])
        lifeline = try TestPipe()
        cleaner = try TestProcess(
            "/bin/sh",
            [
                "-c", "read _; /usr/sbin/fsfreeze --unfreeze \"$1\"; /usr/bin/umount --lazy \"$1\"; rm -f \"$2\"",
                "clean", path, image,
            ],
            input: lifeline.reader,
            output: FreezableStore.nowhere,
            errors: FreezableStore.nowhere
        )
        do {
            // The kernel frees a loop device with its last mount.
            try Host.check("/usr/bin/mount", ["-o", "loop,noatime", image, path])
            descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard descriptor >= 0 else { throw TestFailure("cannot open \(path): errno \(errno)") }
        } catch {
            lifeline.closeWriter()
            _ = cleaner.wait()
            throw error
        }
    }

    private static let nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)

    /// Makes every process that writes wait.
    func freeze() throws {
        guard ioctl(descriptor, FreezableStore.freezeRequest, 0 as CInt) == 0 || errno == EBUSY else {
            throw TestFailure("cannot freeze \(path): errno \(errno)")
        }
    }

    /// Lets the waiting processes write.
    func thaw() {
        // The call fails if the store is not frozen.
        _ = ioctl(descriptor, FreezableStore.thawRequest, 0 as CInt)
    }

    deinit {
        thaw()
        close(descriptor)
        lifeline.closeWriter()
        _ = cleaner.wait()
    }
}
