import ArgumentParser
import Foundation
import LinuxSystem
import Workloads

/// What a workload that arrives may use of this host.
struct ArrivalOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Let the device hook:PATH of a workload that arrives run this program; may be repeated.",
            valueName: "path"
        )
    )
    var allowHook: [String] = []

    @Option(
        help: ArgumentHelp(
            "Let the device disk:PATH of a workload that arrives lock a regular file in this folder; may be repeated "
                + "(default: none).",
            valueName: "folder"
        )
    )
    var allowDisk: [String] = []

    /// A place for built-in workloads.
    func landing(witness: Witness?, resolvesInThread: Bool = false) throws -> BuiltInLanding {
        BuiltInLanding(
            allowingHooks: Set(allowHook),
            allowingDisksIn: try allowDisk.map { try AllowedFolder(URL(fileURLWithPath: $0).path) },
            witness: witness,
            resolvesInThread: resolvesInThread
        )
    }
}
