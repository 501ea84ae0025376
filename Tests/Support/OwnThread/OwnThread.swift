import Dispatch
package import Testing

/// Runs each test on a thread of its own.
///
/// A test that blocks in the kernel then takes none of the few threads that all actors share. Tests that run beside it
/// have deadlines, which they would otherwise miss.
package struct OwnThread: SuiteTrait, TestTrait, TestScoping {
    /// Applies to every test of a suite.
    package var isRecursive: Bool { true }

    /// Runs one test.
    package func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @Sendable () async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(SerialExecutor()) { try await function() }
    }

    /// A serial queue, which gets a thread from Dispatch beyond those of the pool.
    private final class SerialExecutor: TaskExecutor {
        private let queue = DispatchQueue(label: "own-thread")

        func enqueue(_ job: consuming ExecutorJob) {
            let job = UnownedJob(job)
            queue.async { [self] in job.runSynchronously(on: asUnownedTaskExecutor()) }
        }
    }
}

extension Trait where Self == OwnThread {
    /// Runs each test on a thread of its own.
    package static var ownThread: OwnThread { OwnThread() }
}
