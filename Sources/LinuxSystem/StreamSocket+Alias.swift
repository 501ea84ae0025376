import Glibc
import SystemPackage

extension StreamSocket {
    /// Receives what has arrived, without waiting for it.
    ///
    /// - Returns: bytes received; 0 when the peer has closed its side, nil when nothing has arrived.
    @inline(__always)
    public func receiveArrived(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        do throws(Errno) {
            return try kernel(.recv, isForeign: true) {
                orErrno(recv(descriptor.raw, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT)))
            }
        } catch .resourceTemporarilyUnavailable {
            return nil
        } catch {
            throw SystemError("receive from \(peer)", error)
        }
    }

    /// Receives what has arrived straight into memory of another process, without waiting for it.
    ///
    /// - Parameter bytes: where in the memory.
    /// - Returns: bytes received; 0 when the peer has closed its side, nil when nothing has arrived.
    /// - Throws: errno EFAULT if the other process has taken the memory away.
    @inline(__always)
    public func receiveArrived(into alias: MemoryAlias, _ bytes: Range<Int>) throws(SystemError) -> Int? {
        try receiveArrived(into: alias.bytes(bytes))
    }

    /// Waits until bytes can be received or the peer has closed.
    public func waitToReceive() throws(SystemError) {
        var arrival = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        _ = try attempt("wait for \(peer)") { () throws(Errno) in
            try kernel(.poll) { orErrno(poll(&arrival, 1, -1)) }
        }
    }
}
