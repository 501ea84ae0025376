import ArgumentParser
import Foundation
import LinuxSystem
import Workloads

/// What an arriving workload may use of this host.
struct ArrivalOptions: ParsableArguments, Encodable {
    @Option(
        help: ArgumentHelp(
            "Allow an arriving workload with the device hook:PATH to run this program; may be repeated (default: "
                + "none).",
            valueName: "path"
        )
    )
    var allowHook: [String] = []

    @Option(
        help: ArgumentHelp(
            "Allow an arriving workload with the device disk:PATH to lock a regular file in this folder; may be "
                + "repeated (default: none).",
            valueName: "folder"
        )
    )
    var allowDisk: [String] = []

    func validate() throws {
        for path in allowHook where !path.hasPrefix("/") || path.hasSuffix("/") {
            throw ValidationError(
                "--allow-hook: '\(path)' is not the absolute path of a program; give the PATH of hook:PATH"
            )
        }
        for path in allowDisk where !path.hasPrefix("/") {
            throw ValidationError(
                "--allow-disk: '\(path)' is not the absolute path of a folder; give the folder of the files of disk:PATH"
            )
        }
    }

    /// Refuses the options for a workload that has no such devices.
    func requireNone() throws(ValidationError) {
        guard allowHook.isEmpty, allowDisk.isEmpty else {
            throw ValidationError(
                "--allow-hook and --allow-disk are for built-in workloads that arrive; drop them, or drop --guest and "
                    + "--attach"
            )
        }
    }

    /// Allows an arriving workload to run the hooks among these devices, and to lock the disks.
    mutating func allow(_ devices: [DeviceSpecification]) {
        for device in devices {
            switch device {
            case .hook(let path): allowHook.append(path)
            case .disk(let path): allowDisk.append(URL(fileURLWithPath: path).deletingLastPathComponent().path)
            case .broken, .slow, .readsMemory, .large: break
            }
        }
    }

    /// Refuses hooks that cannot be run, before a workload arrives that brings one.
    private func requireHooks() throws(Failure) {
        for path in allowHook {
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
                throw Failure("cannot run \(path): No such file or directory; check the path of --allow-hook")
            }
            guard !isFolder.boolValue, FileManager.default.isExecutableFile(atPath: path) else {
                throw Failure(
                    "cannot run \(path): Permission denied; make it a program that this user may run: chmod +x \(path)"
                )
            }
        }
    }

    /// Makes a landing for built-in workloads, which may use what these options allow.
    func landing(witness: Witness?, resolvesInThread: Bool = false) throws -> BuiltInLanding {
        try requireHooks()
        return BuiltInLanding(
            allowingHooks: Set(allowHook),
            allowingDisksIn: try allowDisk.map { try AllowedFolder($0) },
            witness: witness,
            resolvesInThread: resolvesInThread
        )
    }
}
