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
        let inherited = Inherited()
        // The name is for people, who find the process without it too.
        try? OwnProcess.setName(MemoryKeeper.command)
        try MemoryKeeper.run(count, inherited)
    }
}
