import CShims
import Glibc
import SystemPackage

/// Another process, which stays the same one also when its number has been given to the next (pidfd).
public struct PeerProcess: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// Its number, as this process sees it.
    public let id: Int32
    /// The user it has connected or listened as; nil of a process that was handed on.
    public let user: UInt32?

    /// The user this process runs as.
    public static var ownUser: UInt32 { geteuid() }

    /// The process at the other end of a Unix socket.
    public init(peerOf socket: borrowing StreamSocket) throws(SystemError) {
        let raw = socket.descriptor.raw
        let id = try attempt("see which process is at the other end of \(socket.peer)") { () throws(Errno) in
            try kernel(.getsockopt) { shim_peer_process(raw) }
        }
        guard id > 0 else {
            throw SystemError(
                "see which process is at the other end of \(socket.peer)",
                .noSuchProcess,
                advice: "run where its process can be seen, outside of its PID namespace"
            )
        }
        let user = try attempt("see which user is at the other end of \(socket.peer)") { () throws(Errno) in
            UInt32(bitPattern: try kernel(.getsockopt) { shim_peer_user(raw) })
        }
        descriptor = try attempt("watch process \(id)") { () throws(Errno) in
            do throws(Errno) {
                return OwnedDescriptor(try kernel(.getsockopt) { shim_peer_pidfd(raw) })
            } catch .protocolNotAvailable {
                // Before Linux 6.5 by its number, which is the next one's if the process has ended meanwhile.
                return OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(id) })
            }
        }
        self.id = id
        self.user = user
    }

    init(adopting descriptor: consuming OwnedDescriptor, id: Int32) {
        self.descriptor = descriptor
        self.id = id
        user = nil
    }

    /// What can be done to a process.
    public enum Signal: Sendable {
        /// It ends at once.
        case kill
        /// None of its threads runs until it is continued.
        case stop
        /// Its threads go on.
        case goOn

        fileprivate var number: CInt {
            switch self {
            case .kill: SIGKILL
            case .stop: SIGSTOP
            case .goOn: SIGCONT
            }
        }
    }

    /// Sends a signal. A process that has ended takes it without an error.
    public func send(_ signal: Signal) throws(SystemError) {
        let raw = descriptor.raw
        let number = signal.number
        do throws(Errno) {
            _ = try kernel(.pidfdSendSignal) { shim_pidfd_send_signal(raw, number) }
        } catch .noSuchProcess {
            return
        } catch {
            throw SystemError("send signal \(number) to process \(id)", error, advice: "run as its user or as root")
        }
    }

    /// Whether it has ended.
    public var hasEnded: Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, 0)) }) == 1
    }

    /// Waits until it has ended.
    public func waitForEnd() {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // Without a timeout poll fails on our own descriptor only for want of kernel memory, and may be repeated.
        while (try? kernel(.poll) { orErrno(poll(&watched, 1, -1)) }) == nil {}
    }

    /// Waits until it has ended, until a Unix socket to it is closed at the other end, or until the flag is raised.
    ///
    /// - Parameter socket: nil where the process may close it and go on.
    /// - Returns: false if it was the flag.
    public func waitForEnd(orHangUpOf socket: SharedSocket?, or flag: borrowing EventDescriptor) -> Bool {
        var watched = (
            pollfd(fd: flag.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
            // The other end never writes: only its hang-up is of interest, which needs not be asked for.
            pollfd(fd: socket?.stream.descriptor.raw ?? -1, events: 0, revents: 0)
        )
        while true {
            let isReady = try? kernel(.poll) {
                withUnsafeMutableBytes(of: &watched) { bytes in
                    orErrno(poll(bytes.assumingMemoryBound(to: pollfd.self).baseAddress, 3, -1))
                }
            }
            // Without a timeout poll fails on our own descriptors only for want of kernel memory, and may be repeated.
            if isReady != nil { return watched.0.revents == 0 }
        }
    }
}
