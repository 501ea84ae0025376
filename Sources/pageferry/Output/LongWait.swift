/// A wait of a command that prints what it waits for if it takes long.
enum LongWait {
    /// How long a command waits before it prints what it waits for.
    static let patience = Duration.seconds(2)

    /// Waits for `body`, and prints `what` if that takes longer than ``patience``.
    ///
    /// Prints `interrupted` if a signal ends the process.
    static func tell<Value>(
        _ what: String,
        interrupted: String,
        isolation: isolated (any Actor)? = #isolation,
        _ body: () async throws -> Value
    ) async throws -> Value {
        EndSignals.leave(saying: "pageferry: \(interrupted)")
        let words = Task {
            try await Task.sleep(for: patience)
            Terminal.tell("pageferry: \(what)")
        }
        defer { words.cancel() }
        return try await body()
    }
}
