import CShims
import Glibc
import SystemPackage

/// A program in a process and a process group of its own; dropping the value before it has ended kills the group.
///
/// The program gets no descriptor of this process but standard error's pipe, not even one that is not close-on-exec,
/// and its signals are as at login. It has no input, and its standard output is lost.
public struct ChildProcess: ~Copyable, Sendable {
    /// How a program ended.
    public enum End: Hashable, Sendable {
        /// By itself.
        case exited(status: Int)
        /// By a signal.
        case killed(signal: Int)
    }

    private let id: pid_t
    /// Readable once the process has ended (pidfd).
    private let descriptor: OwnedDescriptor
    private let errors: OwnedDescriptor

    /// Starts a program.
    ///
    /// - Parameter path: an executable file; it is not looked for elsewhere.
    public init(_ path: String, _ arguments: [String]) throws(SystemError) {
        var ends: [CInt] = [-1, -1]
        _ = try attempt("make a pipe") { () throws(Errno) in try kernel(.pipe2) { shim_pipe(&ends) } }
        let reading = OwnedDescriptor(ends[0])
        let writing = OwnedDescriptor(ends[1])
        let raw = writing.raw
        let id = try attempt("run \(path)") { () throws(Errno) in
            try ChildProcess.spawn(path, arguments, errors: raw)
        }
        // Until the last copy of this end is closed, the other shows no end.
        _ = consume writing
        descriptor = try attempt("watch \(path)") { () throws(Errno) in try ChildProcess.watch(id) }
        errors = reading
        self.id = id
    }

    deinit {
        // What a program that has ended by itself has left running is to stay.
        if hasEnded {
            ChildProcess.reap(id)
        } else {
            ChildProcess.end(id)
        }
    }

    /// Waits for the program's end, and meanwhile reads what it and those it started write to standard error.
    ///
    /// - Parameters:
    ///   - milliseconds: how long at most.
    ///   - limit: bytes of standard error to keep.
    /// - Returns: how it ended, nil if it has not, and the beginning of what was written.
    public func wait(
        milliseconds: UInt64,
        keeping limit: Int = 4096
    ) throws(SystemError) -> (end: End?, errors: [UInt8]) {
        let deadline = MonotonicClock.now() + milliseconds * 1_000_000
        var kept: [UInt8] = []
        var watched = [
            pollfd(fd: errors.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
        ]
        while true {
            let left = deadline - min(deadline, MonotonicClock.now())
            // Rounded up: a wait of 0 would not wait for the last part of a millisecond.
            let timeout = CInt(clamping: (left + 999_999) / 1_000_000)
            _ = try attempt("wait for a program") { () throws(Errno) in
                try kernel(.poll) { orErrno(poll(&watched, nfds_t(watched.count), timeout)) }
            }
            // First what it wrote before it ended; somebody who goes on writing does not hold up the end for ever.
            if watched[0].revents != 0, left > 0 {
                let piece = read()
                kept += piece.prefix(limit - kept.count)
                // poll passes over what is negative.
                if piece.isEmpty { watched[0].fd = -1 }
            } else if watched[1].revents != 0 {
                return (try end(), kept)
            } else if left == 0 {
                return (nil, kept)
            }
        }
    }

    private func read() -> [UInt8] {
        var piece = [UInt8](repeating: 0, count: 4096)
        let count = (try? kernel(.read) { orErrno(Glibc.read(errors.raw, &piece, piece.count)) }) ?? 0
        return Array(piece[..<count])
    }

    private var hasEnded: Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, 0)) }) == 1
    }

    /// Looks how it ended; the kernel keeps that, and the process's number, until ``reap(_:)``.
    private func end() throws(SystemError) -> End {
        var signal: CInt = 0
        let status = try attempt("see how a program ended") { () throws(Errno) in
            try kernel(.waitid) { shim_child_end(id, &signal) }
        }
        return signal == 0 ? .exited(status: Int(status)) : .killed(signal: Int(signal))
    }

    private static func watch(_ id: pid_t) throws(Errno) -> OwnedDescriptor {
        do throws(Errno) {
            return OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(id) })
        } catch {
            end(id)
            throw error
        }
    }

    private static func end(_ id: pid_t) {
        _ = try? kernel(.kill) { orErrno(kill(-id, SIGKILL)) }
        reap(id)
    }

    private static func reap(_ id: pid_t) {
        _ = try? kernel(.waitpid) { orErrno(waitpid(id, nil, 0)) }
    }

    private static func spawn(_ path: String, _ arguments: [String], errors: CInt) throws(Errno) -> pid_t {
        try Spawn.start(path, [path] + arguments, closingFrom: STDERR_FILENO + 1) { actions in
            posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO)
            posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        }
    }
}
