import ArgumentParser
import FaultHandler
import Foundation
import LinuxSystem
import Logging

/// Makes the workers of `pageferry attach`, each of which serves one guest.
struct ForkServerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "fork-server", shouldDisplay: false)

    func run() throws {
        var given = Inherited()
        var template = try TemplateProcess(&given)
        LineLog.follow(try SharedLogLevel(given.memoryFile()))
        name("pageferry-forks")
        do throws(SystemError) {
            // A worker is replaced when it is killed, and a handler is not.
            try OwnProcess.volunteer(by: 200)
        } catch {
            logger.info("\(error)")
        }
        try GuestTask.rehearse()
        guard let inherited = try template.serve() else { return }
        try work(inherited)
    }

    private var logger: Logger { LineLog.logger("attach") }

    private func name(_ name: String) {
        do throws(SystemError) {
            try OwnProcess.setName(name)
        } catch {
            logger.info("\(error)")
        }
    }

    /// Does the work of a worker, and exits.
    private func work(_ inherited: consuming Inherited) throws -> Never {
        let task = try GuestTask(&inherited)
        name("pageferry-guest")
        let logger = logger
        let end = try GuestService(task, inherited, logger: logger).run()
        // Exits without joining the threads of the service: their work is over, and the kernel ends them.
        Foundation.exit(end.rawValue)
    }
}
