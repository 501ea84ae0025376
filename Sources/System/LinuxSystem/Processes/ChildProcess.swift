import CShims
import Glibc
import SystemPackage

/// A program in its own process and process group; dropping the value before the program has exited kills the group.
///
/// The program inherits no descriptor of this process, not even one that is not close-on-exec. Its standard input is
/// empty, its standard output is discarded, and its standard error is a pipe to this process. Its signals are as at
/// login.
package struct ChildProcess: ~Copyable, Sendable {
    /// How a program ended.
    package enum End: Hashable, Sendable {
        /// The program exited by itself.
        case exited(status: Int)
        /// A signal killed the program.
        case killed(signal: Int)
    }

    private let id: pid_t
    /// A pidfd, readable once the process has exited.
    private let descriptor: OwnedDescriptor
    private let errors: OwnedDescriptor

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - path: an executable file; PATH is not searched.
    ///   - arguments: the program's arguments, without its name.
    package init(_ path: String, _ arguments: [String]) throws(SystemError) {
        var ends: [CInt] = [-1, -1]
        _ = try attempt("make a pipe") { () throws(Errno) in try kernel(.pipe2) { shim_pipe(&ends) } }
        let reading = OwnedDescriptor(ends[0])
        let writing = OwnedDescriptor(ends[1])
        let raw = writing.raw
        let id = try attempt("run \(path)", adviceOn: { SystemError.advice(onProgram: $0, path) }) { () throws(Errno) in
            try ChildProcess.spawn(path, arguments, errors: raw)
        }
        // The reading end reports the end only after the last copy of the writing end is closed.
        _ = consume writing
        descriptor = try attempt("watch \(path)") { () throws(Errno) in try ChildProcess.watch(id) }
        errors = reading
        self.id = id
    }

    deinit {
        // Processes that a program left running when it exited by itself are kept.
        if hasEnded {
            ChildProcess.reap(id)
        } else {
            ChildProcess.end(id)
        }
    }

    /// Waits for the program's exit, and meanwhile reads what the program and its children write to standard error.
    ///
    /// - Parameters:
    ///   - milliseconds: the longest time to wait.
    ///   - limit: bytes of standard error to keep.
    /// - Returns: how the program ended, nil if it still runs, and the beginning of its standard error.
    package func wait(
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
            // Rounded up: a timeout of 0 would not wait through the last part of a millisecond.
            let timeout = CInt(clamping: (left + 999_999) / 1_000_000)
            _ = try attempt("wait for a program") { () throws(Errno) in
                try kernel(.poll) { orErrno(poll(&watched, nfds_t(watched.count), timeout)) }
            }
            // Standard error is read first, since it was written before the exit. A process that keeps writing delays
            // the result only until the deadline.
            if watched[0].revents != 0, left > 0 {
                let piece = read()
                kept += piece.prefix(limit - kept.count)
                // poll(2) ignores negative descriptors.
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
        // Standard error that cannot be read is only missing from an error that is reported anyway.
        let count = (try? kernel(.read) { orErrno(Glibc.read(errors.raw, &piece, piece.count)) }) ?? 0
        return Array(piece[..<count])
    }

    private var hasEnded: Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory; the program then counts as running.
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, 0)) }) == 1
    }

    /// Reads how the program ended; the kernel keeps that and the process's number until ``reap(_:)``.
    private func end() throws(SystemError) -> End {
        var signal: CInt = 0
        let status = try attempt("read how a program ended") { () throws(Errno) in
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
        // The process may have exited already.
        _ = try? kernel(.kill) { orErrno(kill(-id, SIGKILL)) }
        reap(id)
    }

    private static func reap(_ id: pid_t) {
        // A child that was already waited for is gone.
        _ = try? kernel(.waitpid) { orErrno(waitpid(id, nil, 0)) }
    }

    private static func spawn(_ path: String, _ arguments: [String], errors: CInt) throws(Errno) -> pid_t {
        try Spawn.start(path, [path] + arguments, closingFrom: STDERR_FILENO + 1) { actions in
            posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO)
            posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        }
    }
}
