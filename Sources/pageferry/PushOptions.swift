import ArgumentParser
import Controller

/// What a source does with the pages that nobody has asked for.
struct PushOptions: ParsableArguments {
    @Flag(name: .customLong("no-push"), help: "Send a page only when it is asked for.")
    var noPush = false

    @Option(
        help: ArgumentHelp(
            "Push at most so many bytes of pages a second, such as 100MiB; 0: as many as the network takes. Pages that are "
                + "asked for are sent at once all the same, and so are those asked for ahead beside them.",
            valueName: "size"
        )
    )
    var maxBandwidth = Bandwidth(bytesPerSecond: 0)

    @Flag(
        help: ArgumentHelp(
            "Give memory back to this host as it is sent, once the workload runs at the destination. A link that breaks "
                + "after that may leave pages behind that nobody has any more."
        )
    )
    var releaseRam = false

    func validate() throws {
        guard !noPush || maxBandwidth.bytesPerSecond == 0 else {
            throw ValidationError("what is not pushed needs no --max-bandwidth; drop that or --no-push")
        }
        guard !(noPush && releaseRam) else {
            throw ValidationError("memory is given back as it is pushed: --release-ram does nothing with --no-push")
        }
    }

    /// The same options as the arguments of another command.
    var arguments: [String] {
        var arguments = ["--max-bandwidth", "\(maxBandwidth.bytesPerSecond)"]
        if noPush { arguments.append("--no-push") }
        if releaseRam { arguments.append("--release-ram") }
        return arguments
    }

    func fill(_ configuration: inout Agent.Configuration) {
        configuration.pushes = !noPush
        configuration.maxPostcopyBandwidth = maxBandwidth.bytesPerSecond
        configuration.releasesMemory = releaseRam
    }
}
