import Controller
import Foundation
import Synchronization

/// Ends an agent when whoever started it does: their end of the pipe to standard input closes.
///
/// One that is to see its migration through does so first.
final class InputEnd: Sendable {
    static let shared = InputEnd()
    private let agent = Mutex<Agent?>(nil)

    /// Names the agent that is to end; before, the process does at once.
    func tell(_ agent: Agent) {
        self.agent.withLock { $0 = agent }
    }

    /// Begins to watch, on a thread that lives as long as the process.
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
