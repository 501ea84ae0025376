import Outside

/// The runs of bytes in which a device's state differs from the state that was sent ahead.
///
/// On the wire: u32 bytes of the new state, then for each run u32 offset, u32 length and the bytes, in order. Bytes
/// outside the runs are unchanged. If a state has grown, runs hold all bytes beyond its earlier end.
package enum StatePatch {
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
