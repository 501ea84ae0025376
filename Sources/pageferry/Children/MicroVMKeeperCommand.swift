import ArgumentParser
import LinuxSystem
import Logging
import MicroVMGuest

/// Kills or resumes a microVM if its agent dies, in a process that the agent starts.
struct MicroVMKeeperCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: MicroVMKeeper.command, shouldDisplay: false)

    @Option
    var logLevel = Logger.Level.notice

    @Argument(transform: { text in
        guard let deed = MicroVMKeeper.Deed(rawValue: text) else { throw ValidationError("write kill or resume") }
        return deed
    })
    var deed: MicroVMKeeper.Deed

    @Argument
    var process: Int32

    @Argument
    var socketPath: String

    @Argument
    var file: String?

    func run() throws {
        LineLog.setLevel(logLevel)
        let logger = LineLog.logger(deed == .kill ? "destination" : "source")
        try MicroVMKeeper.run(deed, process: process, at: socketPath, removing: file, Inherited(), logger: logger)
    }
}
