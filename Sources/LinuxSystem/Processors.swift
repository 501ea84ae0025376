import Glibc

/// The processors of this host.
public enum Processors {
    /// How many are in use; at least 1.
    public static var online: Int { max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN))) }
}
