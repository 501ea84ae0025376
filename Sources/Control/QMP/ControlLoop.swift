internal import NIOCore
internal import NIOPosix

/// The one thread on which all QMP connections of this process are read and written.
///
/// The thread lives as long as the process, and sleeps in the kernel while no connection has anything to read or write.
enum ControlLoop {
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// The thread's loop.
    static var shared: any EventLoop { group.any() }
}
