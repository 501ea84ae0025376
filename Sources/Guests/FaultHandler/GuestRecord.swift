import Foundation
import LinuxSystem
import Logging
import PageFetcher
import Synchronization

/// What a later handler must know to serve a guest whose handler has died, beside the guest's ``SessionMemory``.
struct GuestRecord: Codable {
    /// The version of the record's form.
    static let version = 1

    /// ``version`` of the handler that wrote the record.
    let version: Int
    /// The guest's process.
    let process: PeerProcess.Birth
    /// The inode of the guest's userfaultfd.
    let userfaultfd: UInt64
    /// The user as whom the process has handed over the memory; nil in the record of a handler that did not write it.
    let user: UInt32?
    /// What the guest's workers were told.
    let task: GuestTask

    init(process: PeerProcess.Birth, of user: UInt32?, userfaultfd: UInt64, task: GuestTask) {
        version = GuestRecord.version
        self.process = process
        self.user = user
        self.userfaultfd = userfaultfd
        self.task = task
    }
}

/// What a handler keeps for the next one: for each guest a record and the state of its session in a folder, and the
/// guest's userfaultfd with the service manager.
final class GuestStore: Sendable {
    /// The names of a guest's two files, `PID-STARTED.guest` and `PID-STARTED.state`.
    struct Names: Hashable {
        let process: Int32
        let started: UInt64

        var record: String { "\(process)-\(started).guest" }
        var state: String { "\(process)-\(started).state" }
        /// The name of the guest's userfaultfd in the store of the service manager.
        var descriptor: String { "\(ServiceStore.prefix)\(process)-\(started)" }

        init(of process: PeerProcess.Birth) {
            self.process = process.id
            started = process.started
        }

        /// Reads the name of a record; nil for the name of anything else.
        init?(record name: String) {
            guard name.hasSuffix(".guest") else { return nil }
            let parts = name.dropLast(".guest".count).split(separator: "-", omittingEmptySubsequences: false)
            guard parts.count == 2, let process = Int32(parts[0]), let started = UInt64(parts[1]) else { return nil }
            self.process = process
            self.started = started
        }
    }

    private let folder: StateFolder
    private let service: ServiceStore

    /// Opens the folder at a path, creates it if it does not exist, and keeps other handlers out of it.
    ///
    /// - Parameter service: what the service manager keeps.
    init(at path: String, _ service: ServiceStore) throws(SystemError) {
        folder = try StateFolder(path)
        self.service = service
    }

    /// The folder's path.
    var path: String { folder.path }

    /// The guests of earlier handlers; what those handlers have left half-written is removed.
    func guests() throws(SystemError) -> [Names] {
        let files = try folder.names()
        let guests = files.compactMap { Names(record: $0) }
        let known = Set(guests.flatMap { [$0.record, $0.state] })
        for file in files where !known.contains(file) && (file.hasSuffix(".state") || file.hasSuffix(".guest.new")) {
            try folder.remove(file)
        }
        service.keep(only: guests.map(\.descriptor))
        return guests
    }

    /// The userfaultfd of a guest that the service manager has kept; nil if it has none.
    func userfaultfd(_ names: Names, inode: UInt64) -> Userfaultfd? { service.userfaultfd(names.descriptor, inode) }

    /// Whether the service manager has kept a userfaultfd of a guest whose memory is in use.
    func isInUse(_ names: Names) -> Bool { service.isInUse(names.descriptor) }

    /// Gives the service manager a copy of a guest's userfaultfd to keep.
    func keep(_ userfaultfd: borrowing Userfaultfd, _ names: Names) { service.add(userfaultfd, as: names.descriptor) }

    /// Reads the record of a guest.
    ///
    /// - Throws: why this handler cannot use the record.
    func record(_ names: Names) throws -> GuestRecord {
        struct Version: Decodable {
            let version: Int
        }
        guard let bytes = try folder.read(names.record, atMost: GuestTask.maxByteCount + 4096) else {
            throw ServiceFailure(description: "its record is gone")
        }
        let data = Data(bytes)
        let version: Int
        do {
            version = try JSONDecoder().decode(Version.self, from: data).version
        } catch {
            // The decoder names a place in the JSON, which helps nobody: no person writes a record.
            throw ServiceFailure(description: "its record \(path)/\(names.record) is damaged")
        }
        guard version == GuestRecord.version else {
            throw ServiceFailure(
                description: "its record has version \(version), and this is version \(GuestRecord.version)"
            )
        }
        let record: GuestRecord
        do {
            record = try JSONDecoder().decode(GuestRecord.self, from: data)
            try record.task.requireSound()
        } catch {
            // The decoder names a place in the JSON, which helps nobody: no person writes a record.
            throw ServiceFailure(description: "its record \(path)/\(names.record) is damaged")
        }
        guard Names(of: record.process) == names, record.task.process == names.process else {
            throw ServiceFailure(description: "its record \(path)/\(names.record) is that of another process")
        }
        return record
    }

    /// Makes the state file of a guest and writes its record.
    func add(_ record: GuestRecord, _ userfaultfd: borrowing Userfaultfd) throws -> MemoryFile {
        let names = Names(of: record.process)
        // A state without a record means nothing: its handler was killed in between.
        try folder.remove(names.state)
        let file = try folder.makeFile(names.state, byteCount: SessionMemory.byteCount(for: record.task))
        guard try file.lock() else { throw ServiceFailure(description: "another handler uses its state") }
        try folder.write(Array(try JSONEncoder().encode(record)), as: names.record)
        service.add(userfaultfd, as: names.descriptor)
        return file
    }

    /// Opens the state file of a guest.
    func state(_ names: Names) throws(SystemError) -> MemoryFile {
        try folder.openFile(names.state)
    }

    /// Removes the files of a guest that needs no handler any more.
    func forget(_ names: Names) throws(SystemError) {
        // The record goes first: a state without a record means nothing.
        try folder.remove(names.record, names.state)
        service.remove(names.descriptor)
    }
}
