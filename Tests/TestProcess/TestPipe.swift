import Glibc
import LinuxSystem
import Synchronization
import SystemPackage

/// A pipe between a test and a process, of which no other process gets a copy.
public final class TestPipe: Sendable {
    /// The descriptor of the end that is read from.
    public let reader: CInt
    /// The descriptor of the end that is written to, until ``closeWriter()``.
    public let writer: CInt
    private let isWriterOpen = Atomic<Bool>(true)

    /// Makes a pipe.
    public init() throws {
        let ends = try FileDescriptor.pipe()
        (reader, writer) = (ends.readEnd.rawValue, ends.writeEnd.rawValue)
        for end in [reader, writer] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    }

    /// The process that was started has a copy; when it ends, so does what is read.
    public func closeWriter() {
        if isWriterOpen.exchange(false, ordering: .relaxed) { close(writer) }
    }

    /// Waits for what comes next.
    ///
    /// - Returns: nil when nobody writes any more.
    public func read() -> [UInt8]? {
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(reader, &piece, piece.count)
            if count > 0 { return Array(piece[..<count]) }
            guard count < 0, errno == EINTR else { return nil }
        }
    }

    deinit {
        closeWriter()
        close(reader)
    }
}
