extension WorkingSet {
    /// The constants of the record's format, which <doc:TheRecord> describes completely.
    package enum Record {
        /// The bytes `P G W S`, read as a little-endian integer.
        package static let magic: UInt32 = 0x5357_4750
        /// The version of the format that this module writes and reads.
        package static let version: UInt16 = 1
        static let headerByteCount = 32
        static let runByteCount = 8
        static let checksumByteCount = 4

        /// Bytes of a record with `count` runs.
        package static func byteCount(ofRuns count: Int) -> Int {
            headerByteCount + runByteCount * count + checksumByteCount
        }

        /// Bytes of the longest record, one with `maxRuns` runs.
        package static var maxByteCount: Int { byteCount(ofRuns: maxRuns) }
    }

    /// Encodes the working set as a record; equal working sets have equal records.
    package func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Record.byteCount(ofRuns: runs.count))
        func append(_ number: some FixedWidthInteger) {
            withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
        }
        append(Record.magic)
        append(Record.version)
        append(UInt16(0))
        append(memory.pageSize)
        append(UInt32(runs.count))
        append(memory.byteCount)
        append(window)
        append(UInt32(0))
        for run in runs {
            append(run.first)
            append(run.count)
        }
        append(bytes.withUnsafeBytes { CRC32.checksum($0) })
        return bytes
    }

    /// Decodes a record.
    ///
    /// The memory allocated is proportional to `record`, whatever its fields claim.
    ///
    /// - Throws: what is wrong with the record, as a clause whose subject is "it": "it is cut short …".
    package static func decode(_ record: RawSpan) throws(WorkingSetError) -> WorkingSet {
        try record.withUnsafeBytes { (bytes) throws(WorkingSetError) in
            try requireForm(bytes)
            let memory: Memory
            do throws(WorkingSetError) {
                memory = try Memory(pageSize: bytes.number(at: 8), byteCount: bytes.number(at: 16))
            } catch {
                throw WorkingSetError("it says that \(error)")
            }
            var set = WorkingSet(of: memory, window: bytes.number(at: 24))
            try set.takeRuns(
                from: UnsafeRawBufferPointer(rebasing: bytes.dropFirst(Record.headerByteCount).dropLast(4))
            )
            return set
        }
    }

    /// Checks the record's length, magic, version, checksum and reserved fields.
    private static func requireForm(_ bytes: UnsafeRawBufferPointer) throws(WorkingSetError) {
        guard bytes.count >= Record.byteCount(ofRuns: 0) else {
            throw WorkingSetError("it is cut short: it has \(bytes.count) bytes, less than any record")
        }
        guard bytes.number(at: 0) == Record.magic else {
            throw WorkingSetError("it is no record of a working set: it does not begin with 'PGWS'")
        }
        let version: UInt16 = bytes.number(at: 4)
        guard version == Record.version else {
            throw WorkingSetError(
                "it has version \(version), and only version \(Record.version) can be read; record it again"
            )
        }
        let count: UInt32 = bytes.number(at: 12)
        guard count <= maxRuns else { throw WorkingSetError("it says that it has \(count) runs, more than \(maxRuns)") }
        let expected = Record.byteCount(ofRuns: Int(count))
        guard bytes.count == expected else {
            throw WorkingSetError(
                "it is \(bytes.count < expected ? "cut short" : "too long"): it has \(bytes.count) bytes, and \(count) runs "
                    + "take \(expected)"
            )
        }
        guard bytes.number(at: bytes.count - 4) == CRC32.checksum(UnsafeRawBufferPointer(rebasing: bytes.dropLast(4)))
        else {
            throw WorkingSetError("it is damaged: its checksum does not match; record it again")
        }
        guard bytes.number(at: 6) == UInt16(0), bytes.number(at: 28) == UInt32(0) else {
            throw WorkingSetError("it is damaged: its reserved fields are not 0")
        }
    }

    private mutating func takeRuns(from bytes: UnsafeRawBufferPointer) throws(WorkingSetError) {
        runs.reserveCapacity(bytes.count / Record.runByteCount)
        for offset in stride(from: 0, to: bytes.count, by: Record.runByteCount) {
            let run = Run(first: bytes.number(at: offset), count: bytes.number(at: offset + 4))
            let index = offset / Record.runByteCount
            guard run.count > 0 else { throw WorkingSetError("its run \(index) is empty") }
            guard UInt64(run.first) + UInt64(run.count) <= UInt64(memory.pageCount) else {
                throw WorkingSetError("its run \(index) ends beyond the \(memory.pageCount) pages of its snapshot")
            }
            guard runs.last?.end != run.first else {
                throw WorkingSetError("its run \(index) continues the run before and is not joined with it")
            }
            // This check also keeps the sum in `pageCount` from overflowing.
            guard run.count <= memory.pageCount - pageCount else {
                throw WorkingSetError("it has more pages than the \(memory.pageCount) of its snapshot")
            }
            _ = append(run)
        }
        let sorted = runsByPage
        for (run, next) in zip(sorted, sorted.dropFirst()) where next.first < run.end {
            throw WorkingSetError("it has page \(next.first) twice")
        }
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func number<Number: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Number {
        Number(littleEndian: loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
}
