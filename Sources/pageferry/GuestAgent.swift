import Foundation
import LinuxSystem
import Orchestration
import Telemetry

/// The agent of a guest that `migrate` itself names: it is there for the one migration, and lives on while it is needed.
struct GuestAgent {
    private let folder: TemporaryFolder
    private let agent: ChildAgent
    let client: AgentClient

    /// Starts it.
    init(of guest: GuestOption) async throws {
        folder = try TemporaryFolder()
        do {
            agent = try ChildAgent("source", in: folder.path, ["--guest", guest.description], endsWithUs: false)
            client = try await agent.connect()
        } catch {
            folder.remove()
            throw error
        }
        LineLog.print("pageferry: the guest's agent is controlled at \(agent.address)")
    }

    /// Ends it, unless pages may be missing elsewhere or the guest may still be taken back.
    func leave() async {
        do {
            let report = try await client.report()
            let ended = ["none", "failed", "cancelled"].contains(report.states.last) && report.runsHere
            guard ended || report.states.last == "completed" else {
                return LineLog.print(
                    "pageferry: the guest's agent is needed still; see: pageferry status \(agent.address)"
                )
            }
            try await client.execute("quit")
        } catch {
            LineLog.print("pageferry: the guest's agent has left: \(error)")
        }
        agent.end()
        folder.remove()
    }
}
