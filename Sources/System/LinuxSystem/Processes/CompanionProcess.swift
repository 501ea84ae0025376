import CShims
import Glibc
import Synchronization
import SystemPackage

/// This program in another process, with a pipe to its standard input and a pipe from its standard output.
///
/// The kernel closes this process's ends of both pipes when this process exits, however it exits: a companion that
/// reads its standard input learns of that. Standard error is shared. The companion runs in its own process group, so
/// that signals from a terminal do not reach it, and inherits no other descriptor.
///
/// The program is started from `/proc/self/exe`, which is the running program even after its file was replaced.
package final class CompanionProcess: Sendable {
    /// The companion's process number.
    ///
    /// The number is not reused before this object is released.
    package let id: Int32
    /// A pidfd, readable once the companion has exited.
    private let descriptor: OwnedDescriptor
    private let input: Mutex<OwnedDescriptor?>
    private let output: OwnedDescriptor

    /// Starts this program with other arguments.
    package init(_ arguments: [String]) throws(SystemError) {
        let input = try CompanionProcess.pipe()
        let output = try CompanionProcess.pipe()
        let ends = (input: input.reading.raw, output: output.writing.raw)
        let id = try attempt("start another process of this program") { () throws(Errno) in
            try Spawn.start(
                "/proc/self/exe",
                [CommandLine.arguments[0]] + arguments,
                closingFrom: STDERR_FILENO + 1
            ) { actions in
                posix_spawn_file_actions_adddup2(&actions, ends.input, STDIN_FILENO)
                posix_spawn_file_actions_adddup2(&actions, ends.output, STDOUT_FILENO)
            }
        }
        self.id = id
        descriptor = try attempt("watch process \(id)") { () throws(Errno) in
            do throws(Errno) {
                return OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(id) })
            } catch {
                _ = Glibc.kill(id, SIGKILL)
                _ = waitpid(id, nil, 0)
                throw error
            }
        }
        self.input = Mutex(input.writing)
        self.output = output.reading
        // The companion's own ends close here, so that `output` ends when the companion exits.
    }

    /// Frees the process number of a companion that has exited.
    ///
    /// A companion that still runs keeps running.
    deinit { _ = waitpid(id, nil, WNOHANG) }

    /// The companion as a process whose memory can be read.
    package func peer() throws(SystemError) -> PeerProcess {
        try attempt("watch process \(id)", advice: "raise `ulimit -n`") { () throws(Errno) in
            PeerProcess(adopting: try descriptor.duplicate(), id: id)
        }
    }

    /// Waits for the companion's next line on standard output, of at most 4096 bytes.
    ///
    /// - Returns: the line without its end, or nil if the companion has closed its standard output before.
    package func readLine() -> String? {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while line.count < 4096 {
            // A pipe that cannot be read is treated as closed.
            guard (try? kernel(.read) { orErrno(read(output.raw, &byte, 1)) }) == 1 else { return nil }
            if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
            line.append(byte)
        }
        return nil
    }

    /// Closes the companion's standard input.
    package func closeInput() { input.withLock { $0 = nil } }

    /// Sends SIGTERM.
    package func terminate() { _ = Glibc.kill(id, SIGTERM) }

    /// Sends SIGKILL.
    package func kill() { _ = Glibc.kill(id, SIGKILL) }

    /// Waits until the companion has exited, and returns how it ended.
    @discardableResult
    package func waitForEnd() -> ChildProcess.End {
        var signal: CInt = 0
        // waitid(2) does not fail for a child that was not reaped.
        let status = (try? kernel(.waitid) { shim_child_end(id, &signal) }) ?? 0
        return signal == 0 ? .exited(status: Int(status)) : .killed(signal: Int(signal))
    }

    /// Waits until the companion has exited, or the time has passed.
    ///
    /// - Returns: whether the companion has exited.
    package func wait(milliseconds: Int) -> Bool {
        var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory; the companion then counts as running.
        return (try? kernel(.poll) { orErrno(poll(&watched, 1, CInt(clamping: milliseconds))) }) == 1
    }

    private struct Pipe: ~Copyable {
        let reading: OwnedDescriptor
        let writing: OwnedDescriptor
    }

    private static func pipe() throws(SystemError) -> Pipe {
        var ends: [CInt] = [-1, -1]
        _ = try attempt("make a pipe") { () throws(Errno) in try kernel(.pipe2) { shim_pipe(&ends) } }
        return Pipe(reading: OwnedDescriptor(ends[0]), writing: OwnedDescriptor(ends[1]))
    }
}
