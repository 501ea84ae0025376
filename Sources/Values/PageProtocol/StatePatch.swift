import Glibc
import Outside

/// The runs of bytes in which a device's state differs from the state that was sent ahead.
///
/// On the wire: u32 bytes of the new state, then for each run u32 offset, u32 length and the bytes, in order. Bytes
/// outside the runs are unchanged. If a state has grown, runs hold all bytes beyond its earlier end.
package enum StatePatch {
    /// The most equal bytes between two runs that are sent to join them: another run would cost as many.
    private static let gap = 8
    /// Bytes that are compared at once.
    private static let block = 4096

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
        old.withUnsafeBufferPointer { old in
            new.withUnsafeBufferPointer { new in
                for start in stride(from: 0, to: common, by: block) {
                    let end = min(start + block, common)
                    if let one = old.baseAddress, let other = new.baseAddress,
                        memcmp(one + start, other + start, end - start) == 0
                    {
                        continue
                    }
                    var begin: Int?
                    for index in start..<end {
                        if old[index] == new[index] {
                            if let first = begin { add(first..<index) }
                            begin = nil
                        } else if begin == nil {
                            begin = index
                        }
                    }
                    if let first = begin { add(first..<end) }
                }
            }
        }
        if new.count > common { add(common..<new.count) }
        return runs
    }

    /// Returns the state that results from applying a patch to the state that was sent ahead.
    ///
    /// - Parameters:
    ///   - patch: bytes that ``make(from:to:)`` returned, or that a peer says it returned.
    ///   - old: the state that was sent ahead.
    ///   - limit: the most bytes that the result may have.
    /// - Returns: nil if the patch is too short or too long, has runs out of order or outside of the state, lacks bytes
    ///   of a state that has grown, or makes more than `limit` bytes.
    package static func apply(_ patch: [UInt8], to old: [UInt8], limit: Int) -> [UInt8]? {
        var place = 0
        func number() -> Int? {
            guard patch.count - place >= 4 else { return nil }
            defer { place += 4 }
            return Int(patch[place]) | Int(patch[place + 1]) << 8 | Int(patch[place + 2]) << 16 | Int(patch[place + 3])
                << 24
        }
        // A patch must hold all bytes beyond the earlier state's end, so that a short patch cannot demand much memory.
        guard let count = number(), count <= limit,
            (Untrusted(count) - Untrusted(old.count)).within(Int.min...patch.count) != nil
        else { return nil }
        var state = Array(old.prefix(count))
        state.reserveCapacity(count)
        state += repeatElement(0, count: count - state.count)
        var end = 0
        while place < patch.count {
            // A patch may have a run for each few bytes, so these 32-bit numbers are compared without a wrapper.
            guard let offset = number(), let length = number(), offset >= end, length > 0,
                length <= patch.count - place, offset <= count - length
            else { return nil }
            let last = offset + length
            state.replaceSubrange(offset..<last, with: patch[place..<place + length])
            place += length
            end = last
        }
        return count > old.count && end < count ? nil : state
    }
}

extension [UInt8] {
    fileprivate mutating func append(number: UInt32) {
        for shift in stride(from: 0, to: 32, by: 8) { append(UInt8(truncatingIfNeeded: number >> UInt32(shift))) }
    }
}
