import Glibc
import SystemPackage

/// The descriptors that a service manager gave to this process, by the protocol of sd_listen_fds(3).
package struct ServiceSockets: Sendable {
    /// A descriptor with the name that the service manager gave it.
    package final class Named: Sendable {
        /// The name, as in LISTEN_FDNAMES.
        package let name: String
        let descriptor: OwnedDescriptor

        init(_ name: String, _ descriptor: consuming OwnedDescriptor) {
            self.name = name
            self.descriptor = descriptor
        }

        /// A copy of the descriptor as a userfaultfd.
        ///
        /// - Parameter served: the features of events that the caller serves.
        /// - Throws: ``HandedDescriptorError`` if the descriptor is no userfaultfd or has features that are not served,
        ///   ``SystemError`` if it cannot be copied.
        package func userfaultfd(serving served: Userfaultfd.Features = []) throws -> Userfaultfd {
            let copy = try attempt("copy '\(name)' of the service manager") { () throws(Errno) in
                try descriptor.duplicate()
            }
            return try Userfaultfd(handed: copy, serving: served)
        }
    }

    /// The Unix stream sockets that listen, in their order.
    package private(set) var listeners: [Handover<Listener>] = []
    /// The addresses of ``listeners``.
    package private(set) var addresses: [SocketAddress] = []
    /// The descriptors whose names begin with the prefix that the caller keeps for itself.
    package private(set) var unclaimed: [Named] = []
    /// Why a descriptor was not taken, one line for each.
    ///
    /// Such a descriptor is closed.
    package private(set) var refusals: [String] = []

    /// The variables of the protocol.
    private static let variables = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"]
    /// The number of the first descriptor.
    private static let first: CInt = 3
    /// The most descriptors that are looked at.
    private static let most = 1 << 16

    /// Whether a service manager gave descriptors to this process.
    package static var areHere: Bool { given != nil }

    /// The values of LISTEN_FDS and LISTEN_FDNAMES; nil if they are not for this process.
    private static var given: (count: String, names: String?)? {
        guard let process = text("LISTEN_PID"), Int32(process) == getpid(), let count = text("LISTEN_FDS") else {
            return nil
        }
        return (count, text("LISTEN_FDNAMES"))
    }

    private static func text(_ variable: String) -> String? { getenv(variable).map { String(cString: $0) } }

    /// Takes the descriptors, and removes the variables, so that no child takes them for its own.
    ///
    /// Call this once, before the process has other threads.
    ///
    /// - Parameter prefix: the beginning of the names of those descriptors that are returned as ``unclaimed``.
    package init(leaving prefix: String) {
        let given = ServiceSockets.given
        for variable in ServiceSockets.variables { unsetenv(variable) }
        guard let given else { return }
        guard let count = Int(given.count), (0...ServiceSockets.most).contains(count) else {
            refusals.append("LISTEN_FDS is '\(given.count)', which is no number of descriptors; none is taken")
            return
        }
        let names = given.names.map { $0.split(separator: ":", omittingEmptySubsequences: false).map(String.init) }
        if let names, names.count != count, count > 0 {
            refusals.append(
                "LISTEN_FDNAMES has \(names.count) names for \(count) descriptors; the descriptors count as unnamed"
            )
        }
        for index in 0..<count {
            let number = ServiceSockets.first + CInt(index)
            let name = names.flatMap { $0.count == count ? $0[index] : nil } ?? "unknown"
            take(number, name, leaving: prefix)
        }
    }

    private mutating func take(_ number: CInt, _ name: String, leaving prefix: String) {
        let what = "descriptor \(number), '\(name)', of the service manager"
        let flags = fcntl(number, F_GETFD)
        // A descriptor that came through exec(2) is not close-on-exec; those of this process are.
        guard flags >= 0, flags & FD_CLOEXEC == 0, fcntl(number, F_SETFD, FD_CLOEXEC) == 0 else {
            refusals.append("\(what) is not open; check the unit that starts this process")
            return
        }
        let descriptor = OwnedDescriptor(number)
        guard !name.hasPrefix(prefix) else {
            unclaimed.append(Named(name, descriptor))
            return
        }
        guard ServiceSockets.option(SO_DOMAIN, of: number) == AF_UNIX,
            ServiceSockets.option(SO_TYPE, of: number) == CInt(SOCK_STREAM.rawValue),
            ServiceSockets.option(SO_ACCEPTCONN, of: number) == 1
        else {
            refusals.append("\(what) is no Unix stream socket that listens, and was closed; use ListenStream=/PATH")
            return
        }
        do throws(SystemError) {
            let address = SocketAddress.unix(path: ServiceSockets.path(of: number))
            listeners.append(Handover(try Listener(inheriting: descriptor, at: address)))
            addresses.append(address)
        } catch {
            refusals.append("\(what) was closed: \(error)")
        }
    }

    /// An option of a socket; nil if the descriptor is no socket.
    private static func option(_ name: CInt, of number: CInt) -> CInt? {
        var (value, length) = (CInt(0), socklen_t(MemoryLayout<CInt>.size))
        return getsockopt(number, SOL_SOCKET, name, &value, &length) == 0 ? value : nil
    }

    /// The path that a Unix socket was bound to; `@` and a name for an abstract one.
    private static func path(of number: CInt) -> String {
        var name = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        return withUnsafeMutableBytes(of: &name) { bytes in
            guard let address = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress,
                getsockname(number, address, &length) == 0
            else { return "unnamed" }
            // The path begins behind the family.
            let path = bytes.prefix(min(Int(length), bytes.count)).dropFirst(2)
            guard let begin = path.first else { return "unnamed" }
            let text = begin == 0 ? path.dropFirst() : path.prefix { $0 != 0 }
            return (begin == 0 ? "@" : "") + String(decoding: text, as: UTF8.self)
        }
    }
}
