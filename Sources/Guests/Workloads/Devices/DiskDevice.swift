import Guest
import LinuxSystem
import Synchronization

/// A disk image that both hosts see, locked by the host on which the workload runs.
final class DiskDevice: Device {
    let name: String
    private let path: String
    private let folders: [AllowedFolder]?

    private struct State: ~Copyable {
        var lock: FileLock?
        /// How often the workload has locked the disk, on all hosts.
        var acquisitions: UInt64 = 0
    }

    private let state = Mutex(State())

    /// Makes a device for an image, which is not opened before ``acquire()``.
    ///
    /// - Parameter folders: the folders that an image named by another host must lie in; nil if this host's operator
    ///   named the image.
    init(name: String, path: String, in folders: [AllowedFolder]? = nil) {
        self.name = name
        self.path = path
        self.folders = folders
    }

    /// The image's file name, which must be the same on both hosts; only its directory may differ.
    private var fileName: Substring.UTF8View { (path.split(separator: "/").last ?? "").utf8 }

    var acquisitions: UInt64 { state.withLock { $0.acquisitions } }

    func acquire() throws {
        try state.withLock { state in
            guard state.lock == nil else { return }
            state.lock = try folders.map { try FileLock(path, in: $0) } ?? FileLock(path)
            state.acquisitions += 1
        }
    }

    func release() {
        state.withLock { $0.lock = nil }
    }

    func save() -> [UInt8] {
        var writer = StateWriter()
        writer.append(acquisitions)
        writer.append(fileName)
        return writer.bytes
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        let acquisitions = try reader.nextCount(of: "acquisitions")
        let found = reader.takeRest()
        guard found.elementsEqual(fileName) else {
            let image = String(decoding: found.prefix(256), as: UTF8.self)
            throw DeviceError(device: name, reason: "its state is of the image \(image), not of \(path)")
        }
        self.state.withLock { $0.acquisitions = acquisitions }
    }
}
