internal import LinuxSystem
internal import NIOCore

extension Channel {
    /// Keeps the socket out of programs that this process starts, since NIO opens sockets without SOCK_CLOEXEC.
    ///
    /// Call this on the channel's event loop.
    func closeOnExec() throws {
        try pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
            try LinuxSystem.closeOnExec($0)
        }
    }
}
