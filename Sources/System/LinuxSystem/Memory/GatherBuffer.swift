import Glibc

/// Pieces of memory that one call sends together; created once, then filled and sent again and again.
package struct GatherBuffer: ~Copyable {
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private var used = 0

    /// Allocates room for `capacity` pieces.
    package init(capacity: Int) {
        vectors = .allocate(capacity: capacity)
        vectors.initialize(repeating: iovec())
    }

    deinit {
        vectors.deallocate()
    }

    /// The number of pieces that can be added before the next send.
    @inline(__always)
    package var room: Int { vectors.count - used }

    /// Adds a piece, whose bytes must stay in place until they have been sent.
    ///
    /// Traps if ``room`` is 0.
    @inline(__always)
    package mutating func append(_ base: UnsafeMutableRawPointer, byteCount: Int) {
        precondition(used < vectors.count, "a gathered send has no room for another piece")
        vectors[used] = iovec(iov_base: base, iov_len: byteCount)
        used += 1
    }

    /// Empties the buffer, and returns its pieces for sending.
    @inline(__always)
    mutating func take() -> UnsafeMutableBufferPointer<iovec> {
        defer { used = 0 }
        return UnsafeMutableBufferPointer(rebasing: vectors[..<used])
    }
}
