import CShims
import Glibc
import SystemPackage

/// The service manager that has started this process, by the protocol of sd_notify(3): what it hears of this process, and
/// the descriptors that it keeps for the next one, as the descriptor store of systemd does.
///
/// A stored descriptor comes back by ``ServiceSockets``, under its name.
package struct ServiceManager: Sendable {
    private static let variable = "NOTIFY_SOCKET"
    /// The path of the manager's datagram socket; a name that begins with `@` is an abstract one.
    private let path: String
    /// The time after which the manager replaces this process if it hears nothing (WatchdogSec=); nil if it never does.
    package let watchdogInterval: Duration?

    /// The manager of this process; nil if none has named its socket.
    ///
    /// The variable is removed, so that no child takes the socket for its own. Call this once, before the process has
    /// other threads.
    package static func take() -> ServiceManager? {
        let interval = takeWatchdogInterval()
        guard let path = take(variable) else { return nil }
        guard path.hasPrefix("/") || path.hasPrefix("@") else { return nil }
        return ServiceManager(path: path, watchdogInterval: interval)
    }

    private static func takeWatchdogInterval() -> Duration? {
        let process = take("WATCHDOG_PID")
        guard let text = take("WATCHDOG_USEC"), let microseconds = Int64(text), microseconds > 0,
            process == nil || process == "\(getpid())"
        else { return nil }
        return .microseconds(microseconds)
    }

    /// Reads a variable, and removes it.
    private static func take(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        defer { unsetenv(name) }
        return String(cString: value)
    }

    /// How long a manager may take until its queue has room.
    package static let patience = Duration.seconds(5)

    /// Tells the manager assignments such as `READY=1`, one on each line.
    ///
    /// - Parameter time: how long to wait until the manager's queue has room.
    package func tell(_ assignments: String, waiting time: Duration = patience) throws(SystemError) {
        try send(assignments, nil, time)
    }

    /// Gives the manager a copy of a userfaultfd to keep.
    ///
    /// The manager keeps only as many as the unit allows (FileDescriptorStoreMax=), and says nothing of others.
    ///
    /// - Parameters:
    ///   - userfaultfd: the userfaultfd, of which the manager gets a duplicate.
    ///   - name: printable ASCII without colons, at most 255 bytes.
    package func store(_ userfaultfd: borrowing Userfaultfd, as name: String) throws(SystemError) {
        // A userfaultfd that the manager polls looks like one that has failed.
        try send("FDSTORE=1\nFDPOLL=0\nFDNAME=\(name)", userfaultfd.descriptor.raw)
    }

    /// Makes the manager drop what it keeps under a name.
    package func remove(_ name: String) throws(SystemError) { try send("FDSTOREREMOVE=1\nFDNAME=\(name)", nil) }

    private func send(
        _ text: String,
        _ descriptor: CInt?,
        _ time: Duration = patience
    ) throws(SystemError) {
        let bytes = Array(text.utf8)
        try attempt("tell the service manager at \(path)", advice: "check NotifyAccess= of the unit") {
            () throws(Errno) in
            let type = CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
            let socket = OwnedDescriptor(try kernel(.socket) { orErrno(Glibc.socket(AF_UNIX, type, 0)) })
            let raw = socket.raw
            var (name, length) = try address()
            _ = try kernel(.connect) {
                withUnsafeMutableBytes(of: &name) { place in
                    orErrno(Glibc.connect(raw, place.assumingMemoryBound(to: sockaddr.self).baseAddress, length))
                }
            }
            let deadline = MonotonicClock.now() + UInt64(max(0, time / .nanoseconds(1)))
            while true {
                do throws(Errno) {
                    _ = try kernel(.sendmsg) {
                        if let descriptor { return shim_send_descriptors(raw, bytes, bytes.count, [descriptor], 1) }
                        return orErrno(Glibc.send(raw, bytes, bytes.count, CInt(MSG_NOSIGNAL)))
                    }
                    return
                } catch {
                    let now = MonotonicClock.now()
                    guard error == .resourceTemporarilyUnavailable, now < deadline else { throw error }
                    var watched = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
                    let rest = CInt(clamping: (deadline - now) / 1_000_000 + 1)
                    _ = try kernel(.poll) { orErrno(poll(&watched, 1, rest)) }
                }
            }
        }
    }

    private func address() throws(Errno) -> (sockaddr_un, socklen_t) {
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        let text = Array(path.utf8)
        let offset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 2
        guard offset + text.count < MemoryLayout<sockaddr_un>.size else { throw .fileNameTooLong }
        withUnsafeMutableBytes(of: &name) { place in
            place.baseAddress?.advanced(by: offset).copyMemory(from: text, byteCount: text.count)
            // The name of an abstract socket begins with a zero.
            if text.first == UInt8(ascii: "@") { place[offset] = 0 }
        }
        // The name of an abstract socket has no end but its length; that of a path has a zero.
        return (name, socklen_t(offset + text.count + (text.first == UInt8(ascii: "@") ? 0 : 1)))
    }
}
