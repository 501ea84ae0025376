internal import NIOCore
internal import NIOPosix

/// The one thread on which all QMP connections of this process are read and written.
///
/// It sleeps in the kernel while no connection has anything to say, and lives as long as the process.
enum ControlLoop {
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// The thread's loop.
    static var shared: any EventLoop { group.any() }
}
