import LinuxSystem
import Synchronization

/// The place at which a push continues, shared by the threads of its lanes.
///
/// Each lane takes one chunk of a region after the other, so that pages are sent and placed in runs. No lane takes
/// a chunk that another lane holds, so that no page is sent twice. The lock is taken once for each chunk.
final class PushCursor: Sendable {
    /// Pages that one lane sends in order.
    struct Chunk: Hashable {
        let region: Int
        /// The pages from the first unsent one to the end of the chunk.
        let pages: Range<Int>
    }

    /// Bytes of a chunk, which begins at a multiple of them in its region.
    private static let chunkBytes = 1 << 20
    /// The distance, in pages, up to which two requests count as near.
    private static let neighbourhood = 1024

    private struct State {
        /// The place from which the next chunk is searched.
        var place: PagePlace
        /// The place after the newest request, as of the previous check.
        var seen: PagePlace
        /// The chunk that each lane holds, by the place of the chunk's last page.
        var held: [PagePlace?]
        /// The lanes that may still send pages.
        var running: Int
    }

    private let memory: SentMemory
    /// The number of lanes.
    let lanes: Int
    /// The place after the newest request when the push began.
    let firstSeen: PagePlace
    private let state: Mutex<State>

    init(memory: SentMemory, lanes: Int) {
        self.memory = memory
        self.lanes = lanes
        let seen = memory.behindNewestRequest
        firstSeen = seen
        let place = memory.isUnsent(seen) ? seen : PagePlace(region: 0, page: 0)
        state = Mutex(State(place: place, seen: seen, held: Array(repeating: nil, count: lanes), running: lanes))
    }

    /// Gives up the chunk that a lane holds, and takes the next one with unsent pages.
    ///
    /// - Returns: nil if every page was sent, or is in a chunk of another lane.
    func take(_ lane: Int) -> Chunk? {
        state.withLock { take(lane, in: &$0) }
    }

    /// Moves the push behind the newest request if it is near the request of the check before.
    ///
    /// Requests that are spread over the memory do not predict the next fault; a push that followed them would only
    /// break into short runs. Other lanes finish their chunks before they follow.
    ///
    /// - Returns: the chunk with which the lane continues in place of its own; nil if the push stays where it is.
    func follow(_ newest: PagePlace, _ lane: Int) -> Chunk? {
        state.withLock { state in
            guard newest != state.seen else { return nil }
            let isNear =
                newest.region == state.seen.region
                && abs(newest.page - state.seen.page) <= PushCursor.neighbourhood
            state.seen = newest
            guard isNear, memory.isUnsent(newest) else { return nil }
            state.place = newest
            return take(lane, in: &state)
        }
    }

    /// Records that a lane has sent all it took.
    ///
    /// - Returns: whether every lane has.
    func finish(_ lane: Int) -> Bool {
        state.withLock { state in
            state.held[lane] = nil
            state.running -= 1
            return state.running == 0
        }
    }

    private func take(_ lane: Int, in state: inout State) -> Chunk? {
        state.held[lane] = nil
        var from = state.place
        // Other lanes hold at most `lanes - 1` chunks, so that many rounds and one find a free chunk if there is one.
        for _ in 0..<lanes {
            guard let first = memory.firstUnsent(from: from) else { return nil }
            let end = end(ofChunkWith: first)
            let last = PagePlace(region: first.region, page: end - 1)
            from = PagePlace(region: first.region, page: end)
            guard !state.held.contains(last) else { continue }
            state.held[lane] = last
            state.place = from
            return Chunk(region: first.region, pages: first.page..<end)
        }
        return nil
    }

    /// The end of the chunk to which a page belongs; a single lane takes the region as one chunk.
    private func end(ofChunkWith place: PagePlace) -> Int {
        let region = memory.regions[place.region]
        guard lanes > 1 else { return region.pageCount }
        let pages = max(1, PushCursor.chunkBytes / region.pageSize)
        return min(region.pageCount, (place.page / pages + 1) * pages)
    }
}
