import Dispatch
public import Testing

/// Runs each test on a thread of its own.
///
/// A test that blocks, as the kernel's owners do, then takes none of the few threads that all actors share: what is
/// tested beside it has deadlines of its own.
public struct OwnThread: SuiteTrait, TestTrait, TestScoping {
    /// Applies to every test of a suite.
    public var isRecursive: Bool { true }

    /// Runs one test.
    public func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @Sendable () async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(SerialExecutor()) { try await function() }
    }

    /// A serial queue: Dispatch gives it a thread beyond those of the pool.
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
    public static var ownThread: OwnThread { OwnThread() }
}
