import CShims
import Glibc
import SystemPackage

/// A flag that a thread can wait for together with descriptors (eventfd).
package struct EventDescriptor: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Creates a flag that is not raised.
    package init() throws(SystemError) {
        descriptor = try attempt("make an eventfd") { () throws(Errno) in
            OwnedDescriptor(try kernel(.eventfd) { shim_eventfd() })
        }
    }

    /// Raises the flag; it stays raised until cleared.
    package func raise() {
        // write(2) fails only when the counter is full, after 2^64 - 2 raises.
        withUnsafeBytes(of: UInt64(1)) { one in _ = write(descriptor.raw, one.baseAddress, one.count) }
    }

    /// Waits until the flag is raised.
    package func wait() {
        var descriptor = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // Without a timeout, poll(2) on this descriptor fails only for want of kernel memory, and is repeated.
        while (try? kernel(.poll) { orErrno(poll(&descriptor, 1, -1)) }) == nil {}
    }

    /// Waits until the flag is raised or the time has passed.
    ///
    /// - Returns: whether the flag is raised.
    package func wait(seconds: Double) -> Bool { wait(milliseconds: Int(seconds * 1000)) }

    /// Waits until the flag is raised or the time has passed.
    ///
    /// - Returns: whether the flag is raised.
    package func wait(milliseconds: Int) -> Bool {
        var descriptor = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory; the flag then counts as not raised.
        return (try? kernel(.poll) { orErrno(poll(&descriptor, 1, CInt(clamping: milliseconds))) }) == 1
    }

    /// Whether the flag is raised now.
    package var isRaised: Bool { wait(milliseconds: 0) }

    /// Lowers the flag.
    package func clear() {
        var count: UInt64 = 0
        _ = read(descriptor.raw, &count, 8)
    }
}
