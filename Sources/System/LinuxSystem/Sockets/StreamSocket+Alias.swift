import Glibc
import SystemPackage

extension StreamSocket {
    /// Receives bytes that have arrived, without waiting.
    ///
    /// If another process has taken the buffer's memory away, this throws EFAULT, whereas ``receiveNow(into:)`` traps.
    ///
    /// - Returns: bytes received; 0 if the peer has closed its side, nil if nothing has arrived.
    @inline(__always)
    package func receiveArrived(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
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

    /// Receives bytes that have arrived straight into memory of another process, without waiting.
    ///
    /// - Parameters:
    ///   - alias: this process's mapping of the memory.
    ///   - bytes: the part of the mapping to fill, in bytes from its beginning.
    /// - Returns: bytes received; 0 if the peer has closed its side, nil if nothing has arrived.
    /// - Throws: a ``SystemError`` with errno EFAULT if the other process has taken the memory away.
    @inline(__always)
    package func receiveArrived(into alias: MemoryAlias, _ bytes: Range<Int>) throws(SystemError) -> Int? {
        try receiveArrived(into: alias.bytes(bytes))
    }

    /// Waits until bytes can be received or the peer has closed its side.
    package func waitToReceive() throws(SystemError) {
        var arrival = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        _ = try attempt("wait for \(peer)") { () throws(Errno) in
            try kernel(.poll) { orErrno(poll(&arrival, 1, -1)) }
        }
    }
}
