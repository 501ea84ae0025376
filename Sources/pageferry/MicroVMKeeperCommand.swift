import ArgumentParser
import Foundation
import LinuxSystem
import Logging
import MicroVMGuest

/// Sees to a microVM whose agent ends too early, in a process that the agent starts.
struct MicroVMKeeperCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: MicroVMKeeper.command, shouldDisplay: false)

    @Option
    var logLevel = Logger.Level.notice

    @Argument(transform: { text in
        guard let deed = MicroVMKeeper.Deed(rawValue: text) else { throw ValidationError("it is kill or resume") }
        return deed
    })
    var deed: MicroVMKeeper.Deed

    @Argument
    var process: Int32

    @Argument
    var socketPath: String

    func run() throws {
        // It outlives the agent by a moment, also where both are told to end.
        for number in [SIGTERM, SIGINT, SIGHUP] { signal(number, SIG_IGN) }
        let logger = LineLog.logger(deed == .kill ? "destination" : "source", logLevel)
        try MicroVMKeeper.run(deed, process: process, at: socketPath, Inherited(), logger: logger)
    }
}
