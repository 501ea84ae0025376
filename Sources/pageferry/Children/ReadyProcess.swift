import LinuxSystem

/// A process of this program that prints a line `ready …` when it is ready.
final class ReadyProcess {
    private let process: CompanionProcess
    /// The text after `ready` in that line.
    let ready: String
    private let leftover: Int

    init(_ arguments: [String]) throws {
        let process = try CompanionProcess(arguments + [ConfigurationOptions.onlyArguments])
        guard let line = process.readLine(), line.hasPrefix("ready ") else {
            process.terminate()
            throw Failure("pageferry \(arguments[0]) did not start; the line above says why")
        }
        self.process = process
        ready = String(line.dropFirst(6))
        // The companion does not read its standard input, and must be told to exit.
        leftover = Leftovers.note { process.terminate() }
    }

    func end() {
        Leftovers.forget(leftover)
        process.terminate()
        process.waitForEnd()
    }
}
