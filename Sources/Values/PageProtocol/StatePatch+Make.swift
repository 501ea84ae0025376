import Glibc

extension StatePatch {
    /// The most equal bytes between two runs that are sent to join them: another run would cost as many.
    private static let gap = 8
    /// Bytes that are first compared as a whole.
    private static let block = 4096
    /// Bytes of a changed block that are compared at once.
    private static let word = 8

    /// Returns the patch that turns `old` into `new`, at most 12 bytes longer than `new`.
    ///
    /// A state of more bytes than DEVICES can announce is returned whole, and encoding DEVICES then refuses it.
    package static func make(from old: [UInt8], to new: [UInt8]) -> [UInt8] {
        guard new.count <= Wire.maxDeviceBytes else { return new }
        var patch: [UInt8] = []
        patch.append(number: UInt32(new.count))
        for run in runs(from: old, to: new) {
            patch.append(number: UInt32(run.lowerBound))
            patch.append(number: UInt32(run.count))
            patch += new[run]
        }
        let whole = 12 + new.count
        guard patch.count > whole else { return patch }
        patch = []
        patch.append(number: UInt32(new.count))
        patch.append(number: 0)
        patch.append(number: UInt32(new.count))
        return patch + new
    }

    private static func runs(from old: [UInt8], to new: [UInt8]) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        func add(_ run: Range<Int>) {
            if let last = runs.last, run.lowerBound - last.upperBound <= gap {
                runs[runs.count - 1] = last.lowerBound..<run.upperBound
            } else {
                runs.append(run)
            }
        }
        let common = min(old.count, new.count)
        old.withUnsafeBytes { old in
            new.withUnsafeBytes { new in
                for start in stride(from: 0, to: common, by: block) {
                    let end = min(start + block, common)
                    if let one = old.baseAddress, let other = new.baseAddress,
                        memcmp(one + start, other + start, end - start) == 0
                    {
                        continue
                    }
                    // Most words of a block that has changed are equal.
                    for first in stride(from: start, to: end, by: word) {
                        let indices = first..<min(first + word, end)
                        if indices.count == word,
                            old.loadUnaligned(fromByteOffset: first, as: UInt64.self)
                                == new.loadUnaligned(fromByteOffset: first, as: UInt64.self)
                        {
                            continue
                        }
                        for index in indices where old[index] != new[index] { add(index..<index + 1) }
                    }
                }
            }
        }
        if new.count > common { add(common..<new.count) }
        return runs
    }
}

extension [UInt8] {
    fileprivate mutating func append(number: UInt32) {
        for shift in stride(from: 0, to: 32, by: 8) { append(UInt8(truncatingIfNeeded: number >> UInt32(shift))) }
    }
}
