import LinuxSystem

/// Run leases as files in a directory that both hosts mount: one subdirectory per workload, one file per epoch.
///
/// The process that first creates an epoch's file, exclusively, wins that epoch. A network file system decides that
/// too, and the store holds no lock. Files are never removed, so that a proposal for an old epoch finds the record of
/// that epoch. A store must not be copied while it is in use: the copy has the same name.
package struct FileRunLeaseStore: RunLeaseStore {
    /// The store's name: sixteen random bytes in hexadecimal, kept in a file of the directory.
    package let name: String
    private let path: String

    /// The file that holds the store's name; no workload can have this name, since it begins with a dot.
    private static let nameFile = ".store-id"

    /// Opens the store in a directory that exists.
    ///
    /// - Parameters:
    ///   - path: the directory.
    ///   - creates: whether a directory that is not a store yet becomes one.
    package init(directory path: String, creates: Bool = true) throws(RunLeaseError) {
        self.path = path
        let root = try told { () throws(SystemError) in try Directory(path) }
        if let name = try FileRunLeaseStore.name(of: root) {
            self.name = name
            return
        }
        guard creates else {
            throw RunLeaseError(
                "\(path) is no run lease store: no agent was started with --lease \(path)/NAME; check the path, and "
                    + "that the folder is mounted here"
            )
        }
        let drawn = "\(FileRunLeaseStore.randomDigits())\n"
        let publication = try told { () throws(SystemError) in
            let publication = try root.publish(
                Array(drawn.utf8),
                as: FileRunLeaseStore.nameFile,
                by: FileRunLeaseStore.temporaryName()
            )
            try root.sync()
            return publication
        }
        // Another process may have created the file first, or the answer was lost: the name in the file counts.
        guard let name = try FileRunLeaseStore.name(of: root) else {
            throw RunLeaseError("cannot make \(path) a run lease store: \(publication.reason)")
        }
        self.name = name
    }

    /// The path of the subdirectory with a workload's records.
    package func place(of workload: String) -> String { "\(path)/\(workload)" }

    /// The record of a workload's newest epoch; nil if the workload has none yet.
    package func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? {
        try check(workload)
        let root = try root()
        guard let folder = try told({ () throws(SystemError) in try root.directory(workload) }) else { return nil }
        return try newest(in: folder)
    }

    /// The record of one epoch, whether or not newer epochs exist; nil if that epoch has none.
    package func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
        try check(workload)
        let root = try root()
        guard let folder = try told({ () throws(SystemError) in try root.directory(workload) }) else { return nil }
        return try record(of: epoch, in: folder)
    }

    /// Every epoch of a workload that has a file, in order, with its record; nil in place of a damaged record.
    package func history(of workload: String) throws(RunLeaseError) -> [(epoch: UInt64, record: LeaseRecord?)] {
        try check(workload)
        let root = try root()
        guard let folder = try told({ () throws(SystemError) in try root.directory(workload) }) else { return [] }
        var history: [(epoch: UInt64, record: LeaseRecord?)] = []
        for epoch in try epochs(in: folder).sorted() {
            guard let bytes = try bytes(of: epoch, in: folder) else { continue }
            history.append((epoch, FileRunLeaseStore.record(of: epoch, in: bytes)))
        }
        return history
    }

    /// Releases a lease whose newest record is damaged, by adding a record after it.
    ///
    /// Call this only when an operator has said that every agent that may run the workload is gone. The damaged record
    /// stays and keeps its epoch taken. If the damaged record were moved away, an agent whose start it holds could lose
    /// the epoch to another agent, and both would run the workload.
    ///
    /// - Returns: whether the release is the newest record now; false if the record of `epoch` is not the newest or not
    ///   damaged.
    package func release(damaged epoch: UInt64, for workload: String) throws(RunLeaseError) -> Bool {
        try check(workload)
        let root = try root()
        guard let folder = try told({ () throws(SystemError) in try root.directory(workload) }),
            try epochs(in: folder).max() == epoch, let bytes = try bytes(of: epoch, in: folder),
            FileRunLeaseStore.record(of: epoch, in: bytes) == nil
        else { return false }
        return try create(LeaseRecord.release(ofDamaged: epoch), in: folder) == .won
    }

    /// Tries to make `record` the record of its epoch, if the record before it is still `predecessor`.
    ///
    /// All steps use one open subdirectory. If that subdirectory is removed and made again meanwhile, nothing is
    /// created in the new one (ENOENT).
    package func propose(
        _ record: LeaseRecord,
        following predecessor: LeaseRecord?,
        for workload: String
    ) throws(RunLeaseError) -> LeaseProposal {
        try check(workload)
        let root = try root()
        let folder = try told { () throws(SystemError) in
            if record.epoch == 1 {
                try root.makeDirectory(workload)
                try root.sync()
            }
            return try root.directory(workload)
        }
        guard let folder else { throw gap(before: record, workload, newest: nil) }
        let newest = try newest(in: folder)
        let before = record.epoch - 1
        guard before == predecessor?.epoch ?? 0 else { throw gap(before: record, workload, newest: newest) }
        if let predecessor {
            guard let newest, let found = try self.record(of: before, in: folder) else {
                throw gap(before: record, workload, newest: newest)
            }
            guard found == predecessor else { return .lost(newest: newest) }
        }
        if let newest, record.epoch <= newest.epoch {
            guard try self.record(of: record.epoch, in: folder) == record else { return .lost(newest: newest) }
            return try won(in: folder)
        }
        return try create(record, in: folder)
    }

    private func create(_ record: LeaseRecord, in folder: borrowing Directory) throws(RunLeaseError) -> LeaseProposal {
        let publication: Directory.Publication
        do throws(SystemError) {
            publication = try folder.publish(
                Array(record.text.utf8),
                as: "\(record.epoch)",
                by: FileRunLeaseStore.temporaryName()
            )
        } catch {
            throw RunLeaseError("\(error)")
        }
        if publication == .made { return try won(in: folder) }
        // A network file system may have created the file, lost the answer, and repeated the request by itself; it then
        // reports an error although our own record exists.
        let found: LeaseRecord?
        do throws(RunLeaseError) {
            found = try self.record(of: record.epoch, in: folder)
        } catch {
            throw RunLeaseError(error.description, mayHaveBeenWritten: true)
        }
        guard let found else {
            throw RunLeaseError(publication.reason, mayHaveBeenWritten: !publication.isRefusal)
        }
        return found == record ? try won(in: folder) : .lost(newest: try newest(in: folder) ?? found)
    }

    /// Returns `won` for a record that exists, after making its name durable: the caller may rely on it from now on.
    private func won(in folder: borrowing Directory) throws(RunLeaseError) -> LeaseProposal {
        do throws(SystemError) {
            try folder.sync()
            return .won
        } catch {
            throw RunLeaseError("\(error)", mayHaveBeenWritten: true)
        }
    }

    private func newest(in folder: borrowing Directory) throws(RunLeaseError) -> LeaseRecord? {
        guard let last = try epochs(in: folder).max() else { return nil }
        guard let record = try record(of: last, in: folder) else {
            throw RunLeaseError("\(folder.path)/\(last) was there and is gone; records must not be removed")
        }
        return record
    }

    /// The epochs that have a file, in any order.
    private func epochs(in folder: borrowing Directory) throws(RunLeaseError) -> [UInt64] {
        let names: [String]
        do throws(SystemError) { names = try folder.names() } catch { throw RunLeaseError("\(error)") }
        return names.compactMap { name in UInt64(name).flatMap { "\($0)" == name && $0 > 0 ? $0 : nil } }
    }

    private func record(of epoch: UInt64, in folder: borrowing Directory) throws(RunLeaseError) -> LeaseRecord? {
        guard let bytes = try bytes(of: epoch, in: folder) else { return nil }
        guard let record = FileRunLeaseStore.record(of: epoch, in: bytes) else {
            throw RunLeaseError(
                "the run lease record \(folder.path)/\(epoch) is damaged; see: pageferry lease \(folder.path)"
            )
        }
        return record
    }

    private func bytes(of epoch: UInt64, in folder: borrowing Directory) throws(RunLeaseError) -> [UInt8]? {
        do throws(SystemError) {
            return try folder.read("\(epoch)", atMost: LeaseRecord.maximumByteCount + 1)
        } catch {
            throw RunLeaseError("\(error)")
        }
    }

    private static func record(of epoch: UInt64, in bytes: [UInt8]) -> LeaseRecord? {
        LeaseRecord(text: bytes).flatMap { $0.epoch == epoch ? $0 : nil }
    }

    /// Opens the directory and checks that it is still this store, not the empty mount point of an unmounted file
    /// system.
    private func root() throws(RunLeaseError) -> Directory {
        let root = try told { () throws(SystemError) in try Directory(path) }
        guard try FileRunLeaseStore.name(of: root) == name else {
            throw RunLeaseError("\(path) is not the run lease store \(name) any more; is it mounted?")
        }
        return root
    }

    private static func name(of root: borrowing Directory) throws(RunLeaseError) -> String? {
        let bytes: [UInt8]?
        do throws(SystemError) { bytes = try root.read(nameFile, atMost: 64) } catch { throw RunLeaseError("\(error)") }
        guard let bytes else { return nil }
        let name = String(decoding: bytes.dropLast(), as: UTF8.self)
        guard bytes.last == UInt8(ascii: "\n"), LeaseRecord.isInstance(name) else {
            throw RunLeaseError("\(root.path)/\(nameFile) does not hold the name of a run lease store")
        }
        return name
    }

    /// Whether a workload with a lease in a store of files may have this name.
    package static func isName(_ workload: String) -> Bool {
        let isWord = workload.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default:
                false
            }
        }
        return isWord && (1...64).contains(workload.utf8.count) && !workload.hasPrefix(".")
    }

    private func check(_ workload: String) throws(RunLeaseError) {
        guard FileRunLeaseStore.isName(workload) else {
            throw RunLeaseError(
                "a workload with a run lease cannot be called '\(workload)'; give 1 to 64 of A-Z, a-z, 0-9, '.', '_' "
                    + "and '-', not a '.' first"
            )
        }
    }

    private func gap(before record: LeaseRecord, _ workload: String, newest: LeaseRecord?) -> RunLeaseError {
        let last = newest.map { "the newest epoch is \($0.epoch)" } ?? "no epoch exists yet"
        return RunLeaseError("cannot add epoch \(record.epoch) of '\(workload)' in \(path): \(last)")
    }

    private static func temporaryName() -> String { ".new-\(randomDigits())" }

    private static func randomDigits() -> String {
        let digits = String(UInt128.random(in: 0...UInt128.max), radix: 16)
        return String(repeating: "0", count: 32 - digits.utf8.count) + digits
    }
}

extension Directory.Publication {
    /// The reason to report if the epoch's file does not exist after the attempt to create it.
    fileprivate var reason: String {
        switch self {
        case .refused(let error), .unknown(let error): "\(error)"
        case .made, .exists: "the file existed and is gone"
        }
    }

    fileprivate var isRefusal: Bool {
        switch self {
        case .refused: true
        case .made, .exists, .unknown: false
        }
    }
}

/// Turns the error of a step that precedes every write of an epoch into a `RunLeaseError`.
private func told<Value: ~Copyable>(_ body: () throws(SystemError) -> Value) throws(RunLeaseError) -> Value {
    do throws(SystemError) {
        return try body()
    } catch {
        throw RunLeaseError("\(error)")
    }
}
