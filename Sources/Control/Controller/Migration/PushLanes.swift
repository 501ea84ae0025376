import LinuxSystem

/// The number of connections of a push: the usual one, and its bound.
enum PushLanes {
    /// The round trip for which one more connection is used.
    ///
    /// A TCP connection carries at most its window in each round trip. The kernel's usual limit on a send buffer is
    /// 4 MiB (`net.ipv4.tcp_wmem`), with which one connection carries 1 GiB/s at a round trip of 4 ms, and less beyond.
    private static let step = Duration.milliseconds(4)
    private static let most = 4
    /// The limit on the buffers of all connections together, in bytes; each of them holds one page.
    private static let mostBytes = 128 << 20

    /// The most connections for memory whose largest page has this many bytes, of which each connection needs a buffer.
    static func most(ofPagesWithBytes byteCount: Int) -> Int { max(1, mostBytes / max(1, byteCount)) }

    /// The number of connections for a link.
    ///
    /// - Parameter roundTrip: the round trip of the control connection; nil for a Unix socket.
    static func usual(roundTrip: Duration?) -> Int {
        guard let roundTrip else { return 1 }
        return min(most, 1 + max(0, Int(roundTrip / step)))
    }
}
