/// The least page-fault handler, a process, for tests of what it serves. It ends when its guest hangs up.
public final class LeastHandler: Sendable {
    private let process: GuestProcess

    /// Starts it, and returns when it listens.
    ///
    /// - Parameters:
    ///   - socketPath: where it listens for the hand-off.
    ///   - memory: the memory file.
    ///   - wrongPage: a page of the file that it serves as zeros.
    public init(at socketPath: String, serving memory: String, wrongPage: Int? = nil, in folder: String) throws {
        let program = try Tool.build("firecracker-handler.c", into: folder, "-O2")
        process = try GuestProcess(program, [socketPath, memory] + (wrongPage.map { [String($0)] } ?? []))
        try process.wait(for: "listening")
    }

    /// The hand-off as it came.
    public func message() throws -> String {
        try process.words(after: "message").joined(separator: " ")
    }

    /// The pages of the next REMOVE event.
    public func removed() throws -> Range<Int> {
        let numbers = try process.words(after: "removed").compactMap { Int($0, radix: 16) }
        return numbers[0]..<numbers[0] + numbers[1]
    }

    /// How many faults there were, once the guest has hung up.
    public func faults() throws -> Int {
        Int(try process.wait(for: "faults"))
    }
}
