import Glibc
import LinuxSystem
import Synchronization
import SystemPackage

/// A pipe between a test and a process, which no other process inherits.
package final class TestPipe: Sendable {
    /// The descriptor of the read end.
    package let reader: CInt
    /// The descriptor of the write end, until ``closeWriter()``.
    package let writer: CInt
    private let isWriterOpen = Atomic<Bool>(true)

    /// Makes a pipe.
    package init() throws {
        let ends = try FileDescriptor.pipe()
        (reader, writer) = (ends.readEnd.rawValue, ends.writeEnd.rawValue)
        for end in [reader, writer] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    }

    /// Closes the write end of this process.
    ///
    /// The started process has a copy, so that reading ends when that process exits.
    package func closeWriter() {
        if isWriterOpen.exchange(false, ordering: .relaxed) { close(writer) }
    }

    /// Waits for the next bytes.
    ///
    /// - Returns: nil if no process has the write end open.
    package func read() -> [UInt8]? {
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
