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

    /// Adds a piece, which stays in place until it has been sent.
    @inline(__always)
    public mutating func append(_ base: UnsafeMutableRawPointer, byteCount: Int) {
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
