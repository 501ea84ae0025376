import LinuxSystem

extension WorkingSet {
    /// Reads the record in a file.
    ///
    /// - Throws: what is wrong with the file, in one line that names it.
    public init(contentsOf path: String) throws(WorkingSetError) {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try WholeFile.read(path, atMost: Record.maxByteCount)
        } catch {
            throw WorkingSetError("\(error)")
        }
        do throws(WorkingSetError) {
            self = try WorkingSet.decode(bytes.span.bytes)
        } catch {
            throw WorkingSetError("cannot use \(path) as a working set: \(error)")
        }
    }

    /// Writes the record to a file, in the place of one that has the name, and returns when that is durable. Nobody ever
    /// finds a part of a record there. Who can read it is what the umask leaves of 0644: it tells which pages a guest
    /// uses, and nothing that is in them.
    ///
    /// - Parameter path: names a regular file or nothing.
    public func write(to path: String) throws(WorkingSetError) {
        do throws(SystemError) {
            try WholeFile.replace(path, with: encode())
        } catch {
            throw WorkingSetError("\(error)")
        }
    }
}
