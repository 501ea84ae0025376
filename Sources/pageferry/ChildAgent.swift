import Foundation
import LinuxSystem
import Orchestration

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
    ///   - folder: where its control socket is made.
    ///   - endsWithUs: whether it ends when this process does, however that ends.
    init(_ name: String, in folder: String, _ arguments: [String], endsWithUs: Bool = true) throws {
        self.name = name
        let socket = "\(folder)/\(name).sock"
        address = .unix(path: socket)
        process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = [name, "--qmp", socket, "--log-level", "warning"] + arguments
        if endsWithUs {
            process.arguments?.append("--end-with-input")
            process.standardInput = lifeline
        } else {
            process.standardInput = FileHandle.nullDevice
        }
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
        var total = 0
        var isWorkload = false
        for line in maps.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 3, let kibibytes = Int(words[1]) else { continue }
            if words[0] == "Size:" { isWorkload = kibibytes << 10 >= size }
            if words[0] == "Pss:", !isWorkload { total += kibibytes << 10 }
        }
        return total
    }

    /// Lets the agent end, and waits for it.
    func end() {
        // The agent sees the end of its standard input.
        try? lifeline.fileHandleForWriting.close()
        let deadline = Date(timeIntervalSinceNow: ChildAgent.quitTimeout)
        while process.isRunning, Date() < deadline { Thread.sleep(forTimeInterval: 0.005) }
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
    }
}
