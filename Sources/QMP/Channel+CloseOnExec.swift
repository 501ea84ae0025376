internal import LinuxSystem
internal import NIOCore

extension Channel {
    /// Keeps the socket out of programs that this process starts: NIO makes and accepts sockets without SOCK_CLOEXEC.
    ///
    /// On the event loop.
    func closeOnExec() throws {
        try pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
            try LinuxSystem.closeOnExec($0)
        }
    }
}
