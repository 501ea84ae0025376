import ArgumentParser
import FaultHandler
import LinuxSystem

/// Keeps the userfaultfds of one refused guest open, in a process that `pageferry attach` starts.
struct AttachKeeperCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: MemoryKeeper.command, shouldDisplay: false)

    @Argument
    var count: Int

    func validate() throws {
        guard (1...StreamSocket.DescriptorMessage.maxDescriptors).contains(count) else {
            throw ValidationError("the number of userfaultfds is out of bounds")
        }
    }

    func run() throws {
        try MemoryKeeper.run(count, Inherited())
    }
}
