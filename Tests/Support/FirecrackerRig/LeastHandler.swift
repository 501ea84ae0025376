/// A minimal page-fault handler in a process, for tests of a guest without Pageferry.
///
/// The process exits when its guest hangs up.
package final class LeastHandler: Sendable {
    private let process: GuestProcess

    /// Starts the handler, and returns when it listens.
    ///
    /// - Parameters:
    ///   - socketPath: where the handler listens for the hand-off.
    ///   - memory: the memory file.
    ///   - wrongPage: a page of the file that the handler serves as zeros.
    package init(at socketPath: String, serving memory: String, wrongPage: Int? = nil, in folder: String) throws {
        let program = try Tool.build("firecracker-handler.c", into: folder, "-O2")
        process = try GuestProcess(program, [socketPath, memory] + (wrongPage.map { [String($0)] } ?? []))
        try process.wait(for: "listening")
    }

    /// The received hand-off.
    package func message() throws -> String {
        try process.words(after: "message").joined(separator: " ")
    }

    /// The pages of the next REMOVE event.
    package func removed() throws -> Range<Int> {
        let numbers = try process.words(after: "removed").compactMap { Int($0, radix: 16) }
        return numbers[0]..<numbers[0] + numbers[1]
    }

    /// The number of faults; returns once the guest has hung up.
    package func faults() throws -> Int {
        Int(try process.wait(for: "faults"))
    }
}
