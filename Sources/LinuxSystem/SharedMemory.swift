import Glibc
import SystemPackage

/// Memory that several owners have pieces of; unmapped when the last lets go.
public final class SharedMemory: Sendable {
    private let mapping: Mapping

    /// Shares private memory of this process, which holds zeros.
    ///
    /// - Parameter byteCount: a multiple of the page size.
    public init(anonymousBytes byteCount: Int) throws(SystemError) {
        mapping = try Mapping(anonymousBytes: byteCount)
    }

    /// Shares a memory file with all processes that have it: what stands in it outlives each of them.
    public init(_ file: borrowing MemoryFile) throws(SystemError) {
        mapping = try Mapping(sharing: file)
    }

    /// Bytes in it.
    public var byteCount: Int { mapping.byteCount }

    /// Keeps a piece of it in memory.
    ///
    /// - Parameters:
    ///   - offset: where the piece begins, in bytes.
    ///   - byteCount: bytes in the piece.
    public func lock(at offset: Int, byteCount: Int) throws(SystemError) {
        let piece = piece(at: offset, byteCount: byteCount)
        _ = try attempt("lock \(byteCount) bytes in memory", advice: "raise `ulimit -l`") { () throws(Errno) in
            try kernel(.mlock) { orErrno(mlock(piece, byteCount)) }
        }
    }

    /// A piece of it, for as long as it is kept.
    ///
    /// - Parameters:
    ///   - offset: where the piece begins, in bytes; a multiple of 64.
    ///   - byteCount: bytes in the piece.
    public func piece(at offset: Int, byteCount: Int) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && offset & 63 == 0 && byteCount >= 0 && offset + byteCount <= self.byteCount)
        return mapping.base + offset
    }
}
