import Glibc
import SystemPackage

/// Memory that several owners hold pieces of, unmapped when the last of them releases it.
package final class SharedMemory: Sendable {
    private let mapping: Mapping

    /// Maps private memory of this process, which holds zeros.
    ///
    /// - Parameter byteCount: a multiple of the page size.
    package init(anonymousBytes byteCount: Int) throws(SystemError) {
        mapping = try Mapping(anonymousBytes: byteCount)
    }

    /// Maps a memory file, shared with every process that has the file; its contents outlive each of them.
    package init(_ file: borrowing MemoryFile) throws(SystemError) {
        mapping = try Mapping(sharing: file)
    }

    /// Bytes in the memory.
    package var byteCount: Int { mapping.byteCount }

    /// Locks a piece into physical memory, so that it is not swapped out.
    ///
    /// - Parameters:
    ///   - offset: where the piece begins, in bytes.
    ///   - byteCount: bytes in the piece.
    package func lock(at offset: Int, byteCount: Int) throws(SystemError) {
        let piece = piece(at: offset, byteCount: byteCount)
        _ = try attempt("lock \(byteCount) bytes in memory", advice: "raise `ulimit -l`") { () throws(Errno) in
            try kernel(.mlock) { orErrno(mlock(piece, byteCount)) }
        }
    }

    /// A piece of the memory, valid as long as this object lives.
    ///
    /// - Parameters:
    ///   - offset: where the piece begins, in bytes; a multiple of 64.
    ///   - byteCount: bytes in the piece.
    package func piece(at offset: Int, byteCount: Int) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && offset & 63 == 0 && byteCount >= 0 && offset + byteCount <= self.byteCount)
        return mapping.base + offset
    }
}
