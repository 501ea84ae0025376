import QMP

/// Callers that wait for the same result.
struct Waiters<Failure: Error> {
    private var continuations: [CheckedContinuation<Void, Failure>] = []
    /// The number of times that a caller began to wait while nobody else waited.
    private(set) var rounds = 0

    /// Whether nobody waits.
    var isEmpty: Bool { continuations.isEmpty }

    /// Adds a caller.
    mutating func add(_ continuation: CheckedContinuation<Void, Failure>) {
        if isEmpty { rounds += 1 }
        continuations.append(continuation)
    }

    /// Lets every caller continue.
    mutating func resume() {
        take().forEach { $0.resume() }
    }

    private mutating func take() -> [CheckedContinuation<Void, Failure>] {
        defer { continuations = [] }
        return continuations
    }
}

extension Waiters where Failure == any Error {
    /// Fails the command of every caller.
    mutating func refuse(_ reason: String) {
        take().forEach { $0.resume(throwing: CommandRefused(reason: reason)) }
    }
}
