import CShims
import Glibc
import SystemPackage

/// Identifies the loopback interface that this process can reach.
package enum HostNetwork {
    /// The host's boot ID and this process's network namespace, as one name; nil if /proc does not report them.
    ///
    /// Two processes have the same name if they share a loopback interface.
    package static var name: String? {
        guard let boot = ProcessFile.text("/proc/sys/kernel/random/boot_id") else { return nil }
        var namespace = stat()
        do throws(Errno) {
            _ = try kernel(.fstatat) { orErrno(fstatat(AT_FDCWD, "/proc/self/ns/net", &namespace, 0)) }
        } catch {
            // /proc is not mounted, or the kernel has no namespaces.
            return nil
        }
        return "\(boot.filter { !$0.isWhitespace }):\(namespace.st_ino)"
    }
}
