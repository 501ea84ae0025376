import LinuxSystem

extension WorkingSet {
    /// Reads the working set from the record in a file.
    ///
    /// - Throws: what is wrong with the file, in one line that names the file.
    package init(contentsOf path: String) throws(WorkingSetError) {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try WholeFile.read(path, atMost: Record.maxByteCount)
        } catch {
            guard !error.isTooLarge else {
                throw unusable(path, "it is no record of a working set: it is larger than any")
            }
            throw WorkingSetError("\(error)")
        }
        do throws(WorkingSetError) {
            self = try WorkingSet.decode(bytes.span.bytes)
        } catch {
            throw unusable(path, "\(error)")
        }
    }

    /// Writes the record to a file, replacing an earlier one, and returns when the file is durable.
    ///
    /// The replacement is atomic: a reader finds the old record or the new one, never a part. The file's mode is 0644
    /// less the umask, since a record says which pages a guest uses but not what they contain.
    ///
    /// - Parameter path: the path of a regular file, or a path that does not exist.
    package func write(to path: String) throws(WorkingSetError) {
        do throws(SystemError) {
            try WholeFile.replace(path, with: encode())
        } catch {
            throw WorkingSetError("\(error)")
        }
    }
}

private func unusable(_ path: String, _ reason: String) -> WorkingSetError {
    WorkingSetError("cannot use \(path) as a working set: \(reason); give a file of pageferry attach --record")
}
