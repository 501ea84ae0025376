package import SystemPackage

/// The failure of a kernel call, for people to read: what failed, on what, why, and what to do.
package struct SystemError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was attempted, with its object: `open /dev/userfaultfd`.
    package let action: String
    /// The kernel's reason.
    package let errno: Errno
    /// The reason of a library, told instead of the kernel's; nil if the kernel has failed.
    package let reason: String?
    /// What the reader can do about the failure, if that is known.
    package let advice: String?

    package init(_ action: String, _ errno: Errno, reason: String? = nil, advice: String? = nil) {
        self.action = action
        self.errno = errno
        self.reason = reason
        self.advice = advice
    }

    /// Whether a time limit has passed.
    package var isTimeout: Bool { errno == .timedOut }

    /// Whether a file has more bytes than its reader accepts.
    package var isTooLarge: Bool { errno == .fileTooLarge }

    /// The error without its advice, for a caller that knows better what to do.
    package var sentence: String { "cannot \(action): \(reason ?? errno.description)" }

    /// The error in one line: `cannot open /dev/userfaultfd: Permission denied; run as root or …`.
    package var description: String {
        advice.map { "\(sentence); \($0)" } ?? sentence
    }
}

extension SystemError {
    /// Advises if this process or this host has too many descriptors open.
    static func advice(onShortage error: Errno) -> String? {
        switch error {
        case .tooManyOpenFiles: "raise `ulimit -n`"
        case .tooManyOpenFilesInSystem: "raise fs.file-max with sysctl"
        default: nil
        }
    }

    /// Advises on a file that a person has named and that cannot be used for this reason.
    static func advice(onFile error: Errno) -> String? {
        switch error {
        case .noSuchFileOrDirectory, .notDirectory: "check the path"
        case .permissionDenied: "run as a user who may use it, or change its permissions"
        default: nil
        }
    }

    /// Advises on a program that a person has named.
    static func advice(onProgram error: Errno, _ path: String) -> String? {
        error == .permissionDenied
            ? "make it a program that this user may run: chmod +x \(path)" : advice(onFile: error)
    }

    /// Advises on a connection to an agent of another host.
    static func advice(onConnection error: Errno) -> String? {
        switch error {
        case .networkUnreachable, .noRouteToHost: "check the address, and the network between the hosts"
        case .timedOut: "check the address, the network and its firewalls, and that the agent's process is not stopped"
        default: "check the port, and that the other side listens there"
        }
    }

    /// Advises on a folder that a person has named, which may not have been created yet.
    static func advice(onFolder error: Errno, _ path: String) -> String? {
        switch error {
        case .noSuchFileOrDirectory: "check the path and what is mounted there, or create it: mkdir -p \(path)"
        case .notDirectory: "name a folder"
        default: advice(onFile: error)
        }
    }
}

/// Runs kernel calls as ``attempt(_:advice:_:)`` does, with advice that depends on the error.
@inline(__always)
func attempt<Value: ~Copyable>(
    _ action: @autoclosure () -> String,
    adviceOn advice: (Errno) -> String?,
    _ body: () throws(Errno) -> Value
) throws(SystemError) -> Value {
    do throws(Errno) {
        return try body()
    } catch {
        throw SystemError(action(), error, advice: advice(error))
    }
}

/// Runs kernel calls, and names the action that they serve if one of them fails.
@inline(__always)
func attempt<Value: ~Copyable>(
    _ action: @autoclosure () -> String,
    advice: @autoclosure () -> String? = nil,
    _ body: () throws(Errno) -> Value
) throws(SystemError) -> Value {
    do throws(Errno) {
        return try body()
    } catch {
        throw SystemError(action(), error, advice: advice())
    }
}
