import ArgumentParser
import FaultHandler
import Foundation
import LinuxSystem
import Logging

/// Serves one guest, in a worker process that `pageferry attach` starts.
struct AttachWorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "attach-worker", shouldDisplay: false)

    @Option
    var logLevel = Logger.Level.notice

    func run() async throws {
        var inherited = Inherited()
        let task = try GuestTask(&inherited)
        let logger = LineLog.logger("attach", logLevel)
        do throws(SystemError) {
            try OwnProcess.setName("pageferry-guest")
            // A worker is replaced when it is killed, and a handler is not.
            try OwnProcess.volunteer(by: 200)
        } catch {
            logger.info("\(error)")
        }
        let end = try GuestService(task, inherited, logger: logger).run()
        // Exits without joining the threads of the service: their work is over, and the kernel ends them.
        Foundation.exit(end.rawValue)
    }
}
