import ArgumentParser
import Compression
import Controller
import PageProtocol

/// How a source pushes the pages that the destination has not requested.
struct PushOptions: ParsableArguments, Encodable {
    @Flag(name: .customLong("no-push"), help: "Send pages only on request, and push none.")
    var noPush = false

    @Option(
        help: ArgumentHelp(
            "Push at most this many bytes per second, such as 100MiB; 0: no limit. Compressed pages count as they are "
                + "sent. Pages that the destination requests, on a fault or ahead, are never limited (default: 0).",
            valueName: "size"
        ),
        transform: Bandwidth.init
    )
    var maxBandwidth = Bandwidth(bytesPerSecond: 0)

    @Option(
        help: ArgumentHelp(
            "Push over this many TCP connections, 1 to 64, each with a thread on both hosts. A destination of an older "
                + "release takes 1 (default: 1, and 1 more for each 4 ms of the link's round trip, up to 4).",
            valueName: "number"
        )
    )
    var pushLanes: Int?

    @Option(
        help: ArgumentHelp(
            "Compress pushed pages, which helps on slow links. Pages that hardly shrink are sent as they are, and so are "
                + "all pages if the destination cannot inflate. auto: measure the link, and use the codec that moves the "
                + "most pages, or none. Pages that the destination requests are never compressed.",
            valueName: "none|lz4|zstd|auto"
        )
    )
    var compress = PushCompression.none

    @Flag(
        help: ArgumentHelp(
            "Free memory on this host as it is pushed, once the workload runs on the destination. If the link breaks then, "
                + "pages in flight are lost for good."
        )
    )
    var releaseRam = false

    func validate() throws {
        guard pushLanes.map({ (1...Wire.maxBulkLanes).contains($0) }) ?? true else {
            throw ValidationError("--push-lanes must be 1 to \(Wire.maxBulkLanes)")
        }
        guard !noPush || pushLanes == nil else {
            throw ValidationError("--push-lanes divides the push, and --no-push turns it off; drop one of the two")
        }
        guard !noPush || maxBandwidth.bytesPerSecond == 0 else {
            throw ValidationError("--max-bandwidth limits the push, and --no-push turns it off; drop one of the two")
        }
        guard !noPush || compress == .none else {
            throw ValidationError(
                "--compress is for pushed pages, and --no-push turns the push off; drop one of the two"
            )
        }
        guard !(noPush && releaseRam) else {
            throw ValidationError(
                "--release-ram frees memory that is pushed, and --no-push turns the push off; drop one of the two"
            )
        }
    }

    func fill(_ configuration: inout Agent.Configuration) {
        configuration.pushes = !noPush
        configuration.pushLanes = pushLanes
        configuration.maxPostcopyBandwidth = maxBandwidth.bytesPerSecond
        configuration.compression = compress
        configuration.releasesMemory = releaseRam
    }
}

extension PushCompression: ExpressibleByArgument {}
