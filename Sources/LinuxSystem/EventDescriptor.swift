import CShims
import Glibc
import SystemPackage

/// A flag that a thread can wait for together with descriptors (eventfd).
public struct EventDescriptor: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Makes a flag that is not raised.
    public init() throws(SystemError) {
        descriptor = try attempt("make an eventfd") { () throws(Errno) in
            OwnedDescriptor(try kernel(.eventfd) { shim_eventfd() })
        }
    }

    /// Raises the flag; it stays raised until cleared.
    public func raise() {
        // The counter saturates after 2^64 - 2 raises only.
        withUnsafeBytes(of: UInt64(1)) { one in _ = write(descriptor.raw, one.baseAddress, one.count) }
    }

    /// Waits until the flag is raised.
    public func wait() {
        var descriptor = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // Without a timeout poll fails on our own descriptor only for want of kernel memory, and may be repeated.
        while (try? kernel(.poll) { orErrno(poll(&descriptor, 1, -1)) }) == nil {}
    }

    /// Waits until the flag is raised, but no longer than this.
    ///
    /// - Returns: whether it is raised.
    public func wait(seconds: Double) -> Bool { wait(milliseconds: Int(seconds * 1000)) }

    /// Waits until the flag is raised, but no longer than this.
    ///
    /// - Returns: whether it is raised.
    public func wait(milliseconds: Int) -> Bool {
        var descriptor = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return (try? kernel(.poll) { orErrno(poll(&descriptor, 1, CInt(clamping: milliseconds))) }) == 1
    }

    /// Whether the flag is raised now.
    public var isRaised: Bool { wait(milliseconds: 0) }

    /// Lowers the flag.
    public func clear() {
        var count: UInt64 = 0
        _ = read(descriptor.raw, &count, 8)
    }
}
