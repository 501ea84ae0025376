import CShims
import Glibc
import SystemPackage

/// Another process, held by a pidfd, so that it is never confused with a later process of the same number.
package struct PeerProcess: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// The process's number, as this process sees it; 0 for a process that this PID namespace does not show.
    package let id: Int32
    /// The user that the process ran as when it connected or listened; nil for a process whose pidfd was inherited.
    package let user: UInt32?

    /// The effective user of this process.
    package static var ownUser: UInt32 { geteuid() }

    /// Finds the process at the other end of a Unix socket.
    ///
    /// - Parameters:
    ///   - socket: a connection that the process has made or accepted.
    ///   - isOutsideAllowed: whether the process may be outside this PID namespace, where no signal reaches it.
    package init(peerOf socket: borrowing StreamSocket, orOutside isOutsideAllowed: Bool = false) throws(SystemError) {
        let raw = socket.descriptor.raw
        let action = "find the process at the other end of \(socket.peer)"
        let id = try attempt(action) { () throws(Errno) in
            try kernel(.getsockopt) { shim_peer_process(raw) }
        }
        guard id > 0 || isOutsideAllowed else {
            throw SystemError(action, .noSuchProcess, advice: "run in a PID namespace that shows the process")
        }
        let user = try attempt("find the user at the other end of \(socket.peer)") { () throws(Errno) in
            UInt32(bitPattern: try kernel(.getsockopt) { shim_peer_user(raw) })
        }
        let name = id > 0 ? "process \(id)" : socket.peer
        descriptor = try attempt("watch \(name)", adviceOn: PeerProcess.advice(onWatch:)) { () throws(Errno) in
            do throws(Errno) {
                return OwnedDescriptor(try kernel(.getsockopt) { shim_peer_pidfd(raw) })
            } catch .protocolNotAvailable {
                guard id > 0 else { throw .noSuchProcess }
                // Before Linux 6.5, the pidfd is opened by number. If the process has exited meanwhile, the number may
                // be another's.
                return OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(id) })
            }
        }
        self.id = id
        self.user = user
    }

    private static func advice(onWatch error: Errno) -> String? {
        error == .noSuchProcess
            ? "run in a PID namespace that shows the process, or on Linux 6.5 or later"
            : SystemError.advice(onShortage: error)
    }

    /// Whether the process is in this PID namespace or in one below, so that signals reach it.
    package var canBeSignalled: Bool { id > 0 }

    init(adopting descriptor: consuming OwnedDescriptor, id: Int32, user: UInt32? = nil) {
        self.descriptor = descriptor
        self.id = id
        self.user = user
    }

    /// An action on a process.
    package enum Signal: Sendable {
        /// Does nothing, and fails as the others would.
        case none
        /// Kills the process.
        case kill

        fileprivate var number: CInt {
            switch self {
            case .none: 0
            case .kill: SIGKILL
            }
        }
    }

    /// Sends a signal; it is no error if the process has exited.
    package func send(_ signal: Signal) throws(SystemError) {
        let raw = descriptor.raw
        let number = signal.number
        do throws(Errno) {
            _ = try kernel(.pidfdSendSignal) { shim_pidfd_send_signal(raw, number) }
        } catch .noSuchProcess {
            return
        } catch  where !canBeSignalled {
            throw SystemError(
                "kill a process of another PID namespace",
                error,
                advice: "kill it from its own namespace"
            )
        } catch {
            throw SystemError("send signal \(number) to process \(id)", error, advice: "run as its user or as root")
        }
    }

    /// Whether the process has exited and its parent has waited for it, so that its number may be another's.
    var wasWaitedFor: Bool {
        let raw = descriptor.raw
        do throws(Errno) {
            _ = try kernel(.pidfdSendSignal) { shim_pidfd_send_signal(raw, 0) }
        } catch {
            return error == .noSuchProcess
        }
        return false
    }

    /// Whether the process has exited.
    package var hasEnded: Bool { waitForEnd(milliseconds: 0) }

    /// Waits for a short time until the process has exited.
    ///
    /// - Returns: whether the process has exited.
    package func waitForEnd(milliseconds: Int32) -> Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory; the process then counts as running.
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, milliseconds)) }) == 1
    }

    /// Waits until the process has exited.
    package func waitForEnd() {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // Without a timeout, poll(2) on this descriptor fails only for want of kernel memory, and is repeated.
        while (try? kernel(.poll) { orErrno(poll(&watched, 1, -1)) }) == nil {}
    }

    /// What a wait for a process ended with.
    package enum Arrival: Sendable {
        /// The process has exited, or has closed its end of the socket.
        case departure
        /// The flag is raised.
        case flag
        /// The time is over.
        case time
    }

    /// Waits until the process exits, the other end of a Unix socket is closed, the flag is raised, or the time is over.
    ///
    /// - Parameters:
    ///   - socket: a connection to the process; nil if the process may close its end and continue to run.
    ///   - flag: an event that another thread raises to end the wait.
    ///   - milliseconds: the longest wait; nil for any.
    package func waitForEnd(
        orHangUpOf socket: SharedSocket?,
        or flag: borrowing EventDescriptor,
        milliseconds: Int? = nil
    ) -> Arrival {
        var watched = (
            pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
            // The other end never writes. Only its hang-up matters, which poll(2) reports without being asked.
            pollfd(fd: socket?.stream.descriptor.raw ?? -1, events: 0, revents: 0)
        )
        var isReady = false
        repeat {
            // poll(2) on these descriptors fails only for want of kernel memory, and is repeated if there is no limit.
            let result = try? kernel(.poll) {
                withUnsafeMutableBytes(of: &watched) { bytes in
                    let first = bytes.assumingMemoryBound(to: pollfd.self).baseAddress
                    return orErrno(poll(first, 3, milliseconds.map { CInt(clamping: $0) } ?? -1))
                }
            }
            isReady = result != nil
        } while !isReady && milliseconds == nil
        if watched.0.revents != 0 { return .flag }
        return watched.1.revents != 0 || watched.2.revents != 0 ? .departure : .time
    }
}
