import Glibc

/// The processors of this host.
package enum Processors {
    /// The number of processors that are online, at least 1.
    package static var online: Int { max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN))) }
}
