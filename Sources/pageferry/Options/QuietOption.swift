import ArgumentParser

/// The option of commands that wait, and print what they wait for.
struct QuietOption: ParsableArguments {
    @Flag(help: "Print no progress: only the result, errors, and what an operator must do.")
    var quiet = false

    /// Makes ``Terminal/tell(_:)`` print nothing in this process.
    func apply() {
        if quiet { Terminal.beQuiet() }
    }
}
