import Controller
import Foundation
import Synchronization

/// Ends an agent when the process that started it exits.
///
/// The parent holds the other end of the pipe to standard input, and the kernel closes that end when the parent exits.
/// With `seesMigrationThrough`, the agent exits only once no migration needs it.
final class InputEnd: Sendable {
    static let shared = InputEnd()
    private let agent = Mutex<Agent?>(nil)

    /// Sets the agent to end; as long as there is none, the process exits at once.
    func tell(_ agent: Agent) {
        self.agent.withLock { $0 = agent }
    }

    /// Starts to watch standard input, on a thread that lives as long as the process.
    func watch(seesMigrationThrough: Bool = false) {
        Thread.detachNewThread { [self] in
            while !FileHandle.standardInput.availableData.isEmpty {}
            guard let agent = agent.withLock(\.self) else { exit(1) }
            if seesMigrationThrough {
                Task { await agent.quitWhenUnneeded() }
            } else {
                agent.quit()
            }
        }
    }
}
