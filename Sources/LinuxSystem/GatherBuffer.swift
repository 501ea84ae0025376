import Glibc

/// Pieces of memory that leave by one send: made once, filled and sent again and again.
public struct GatherBuffer: ~Copyable {
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private var used = 0

    /// Makes room for `capacity` pieces.
    public init(capacity: Int) {
        vectors = .allocate(capacity: capacity)
        vectors.initialize(repeating: iovec())
    }

    deinit {
        vectors.deallocate()
    }

    /// Pieces that can be added before the next send.
    @inline(__always)
    public var room: Int { vectors.count - used }

    /// Adds a piece, which stays in place until it has been sent. There is room for it.
    @inline(__always)
    public mutating func append(_ base: UnsafeMutableRawPointer, byteCount: Int) {
        precondition(used < vectors.count, "a gathered send has no room for another piece")
        vectors[used] = iovec(iov_base: base, iov_len: byteCount)
        used += 1
    }

    /// Forgets the pieces and gives them out to be sent.
    @inline(__always)
    mutating func take() -> UnsafeMutableBufferPointer<iovec> {
        defer { used = 0 }
        return UnsafeMutableBufferPointer(rebasing: vectors[..<used])
    }
}
