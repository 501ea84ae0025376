import CShims
import Glibc
import SystemPackage

/// The limit on the descriptors that this process can have open at a time (RLIMIT_NOFILE).
package enum DescriptorLimit {
    /// Raises the limit of this process to the highest that the process may set by itself.
    ///
    /// Call this in a process that serves many peers. The usual limit, 1024, is meant for programs that use select(2).
    package static func raise() {
        // A limit that cannot be raised stays; the shortage is reported where it occurs.
        guard var limit = try? current(), limit.rlim_cur < limit.rlim_max else { return }
        limit.rlim_cur = limit.rlim_max
        // As above.
        _ = try? kernel(.setrlimit) { orErrno(setrlimit(resource, &limit)) }
    }

    /// The descriptors that are kept free: enough for one guest or peer to be taken up completely.
    private static let reserve = 64

    /// The error if so few descriptors are free that what `action` names should wait; nil if enough are free.
    ///
    /// Before Linux 6.2, the number of open descriptors is unknown, and the result is nil.
    package static func shortage(for action: @autoclosure () -> String) -> SystemError? {
        var folder = stat()
        // Without these numbers, a shortage is reported where it occurs.
        guard let limit = try? current(), stat("/proc/self/fd", &folder) == 0, folder.st_size > 0 else { return nil }
        let (most, open) = (Int(clamping: limit.rlim_cur), Int(folder.st_size))
        guard most.subtractingReportingOverflow(open).partialValue < min(reserve, most / 4) else { return nil }
        return SystemError(
            action(),
            .tooManyOpenFiles,
            advice: "\(open) of \(most) descriptors are open; raise the hard limit of `ulimit -n`"
        )
    }

    /// The number of connections for which this process can open descriptors, besides those that it has open now.
    ///
    /// - Parameter reserve: the descriptors to keep free for other uses; under a low limit, a quarter of the limit.
    package static func connections(keeping reserve: Int) throws(SystemError) -> Int {
        let limit = try attempt("find the limit on descriptors") { () throws(Errno) in try current() }
        let most = Int(clamping: limit.rlim_cur)
        let open = try Directory("/proc/self/fd").names().count
        return max(0, most - open - min(reserve, most / 4))
    }

    /// The reason if not one descriptor more can be opened now, for callers whose library does not report the reason.
    static var reached: Errno? {
        do throws(Errno) {
            _ = OwnedDescriptor(try kernel(.eventfd) { shim_eventfd() })
            return nil
        } catch {
            return error == .tooManyOpenFiles || error == .tooManyOpenFilesInSystem ? error : nil
        }
    }

    private static var resource: __rlimit_resource_t { __rlimit_resource_t(RLIMIT_NOFILE.rawValue) }

    private static func current() throws(Errno) -> rlimit {
        var limit = rlimit()
        _ = try kernel(.getrlimit) { orErrno(getrlimit(resource, &limit)) }
        return limit
    }
}
