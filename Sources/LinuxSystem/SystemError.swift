public import SystemPackage

/// A kernel call that failed, told to a person: what failed, on what, why, and what to do.
public struct SystemError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was being done, with its object: `open /dev/userfaultfd`.
    public let action: String
    /// The kernel's reason.
    public let errno: Errno
    /// What the reader can do about it, where that is known.
    public let advice: String?

    /// Makes an error out of its parts.
    public init(_ action: String, _ errno: Errno, advice: String? = nil) {
        self.action = action
        self.errno = errno
        self.advice = advice
    }

    /// One line: `cannot open /dev/userfaultfd: Permission denied; run as root or …`.
    public var description: String {
        let line = "cannot \(action): \(errno.description)"
        return advice.map { "\(line); \($0)" } ?? line
    }
}

/// Runs kernel calls and names what they were for when one fails.
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
