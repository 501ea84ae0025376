import Foundation
import LinuxSystem
import Orchestration
import Outside

/// An agent in a process of its own.
final class ChildAgent: Sendable {
    /// Seconds for an agent to leave after it was told to.
    private static let quitTimeout = 10.0

    private let name: String
    private let process: Process
    /// Its other end is the child's standard input; the kernel closes this one with the process.
    private let lifeline = Pipe()
    private let output = Pipe()
    let address: SocketAddress

    /// Starts `pageferry NAME` with arguments.
    ///
    /// - Parameters:
    ///   - socket: the path of its control socket.
    ///   - seesMigrationThrough: whether it outlives this process for a migration that is under way. Otherwise it ends
    ///     when this process does, however that ends.
    init(_ name: String, at socket: String, _ arguments: [String], seesMigrationThrough: Bool = false) throws {
        self.name = name
        address = .unix(path: socket)
        process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let end = seesMigrationThrough ? "--leave-with-input" : "--end-with-input"
        process.arguments = [name, "--qmp", socket, "--log-level", "warning", end] + arguments
        process.standardInput = lifeline
        process.standardOutput = output
        try process.run()
    }

    /// Waits until the agent says that it is ready, and connects to it.
    ///
    /// - Throws: ``Failure`` if it ended instead; it has then told why. `CancellationError` if the task was cancelled:
    ///   the agent is then ended, wherever it is.
    func connect() async throws -> AgentClient {
        let ready = output.fileHandleForReading
        let isReady = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Bool, Never>) in
                // Blocks until the first line or the end has come. A readability handler may be called for both.
                DispatchQueue.global().async { continuation.resume(returning: !ready.availableData.isEmpty) }
            }
        } onCancel: {
            // Nothing has moved yet that it could lose. It does not look at its standard input before it is ready; its
            // end closes the other side of `ready`.
            process.terminate()
        }
        try Task.checkCancellation()
        guard isReady else { throw Failure("the \(name) agent did not start") }
        return try await AgentClient(address)
    }

    /// Bytes that the process holds, shared ones in part, but for those in mappings of at least this size: the workload's
    /// memory.
    func memory(withoutMappingsOf size: Int) throws -> Int {
        guard let maps = ProcessFile.text("/proc/\(process.processIdentifier)/smaps") else {
            throw Failure("the \(name) agent has ended")
        }
        var total: Untrusted<Int> = 0
        var isWorkload = false
        for line in maps.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 3, let kibibytes = Int(words[1]) else { continue }
            if words[0] == "Size:" { isWorkload = kibibytes << 10 >= size }
            if words[0] == "Pss:", !isWorkload { total += Untrusted(kibibytes) * 1024 }
        }
        return total.clamped(to: 0...Int.max)
    }

    /// Lets the agent end, and waits for it.
    func end() {
        if !leave(within: ChildAgent.quitTimeout) { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
    }

    /// Lets the agent end when it wants to.
    ///
    /// - Returns: whether it has within so many seconds.
    func leave(within seconds: Double) -> Bool {
        // The agent sees the end of its standard input.
        try? lifeline.fileHandleForWriting.close()
        let deadline = Date(timeIntervalSinceNow: seconds)
        while process.isRunning, Date() < deadline { Thread.sleep(forTimeInterval: 0.005) }
        return !process.isRunning
    }
}
