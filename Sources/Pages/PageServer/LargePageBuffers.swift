import LinuxSystem
import Synchronization

/// A buffer for one page that is larger than the usual 4 KiB.
final class LargePageBuffer: Sendable {
    var base: UnsafeMutableRawPointer? { staging.bytes.baseAddress }
    private let staging: StagingBuffer

    init(byteCount: Int) {
        staging = StagingBuffer(byteCount: byteCount)
    }
}

/// The buffers for large pages that all urgent lanes of a source share.
///
/// Each lane holds one buffer at most, and only from the copy of a page to the end of its send. A lane that finds no
/// buffer waits for the send of another lane. If the peer stops reading, the link's time limit ends that send.
final class LargePageBuffers: Sendable {
    /// Bytes of all buffers: few beside the 32 MiB that an agent may take.
    ///
    /// Several lanes can copy pages of 2 MiB while another one sends. Larger pages have one buffer.
    private static let mostBytes = 12 << 20

    private struct State {
        var free: [LargePageBuffer] = []
        /// The number of buffers that may still be made.
        var unmade: Int
    }

    private let byteCount: Int
    private let state: Mutex<State>
    /// Raised by every buffer that is given back; cleared under the lock when no buffer is left.
    private let isFree: EventDescriptor

    /// Makes buffers for pages of at most `byteCount` bytes.
    init(byteCount: Int) throws(SystemError) {
        self.byteCount = byteCount
        state = Mutex(State(unmade: max(1, LargePageBuffers.mostBytes / byteCount)))
        isFree = try EventDescriptor()
    }

    /// Waits for a buffer, and takes the one that was given back last, whose bytes may still be in the cache.
    func take() -> LargePageBuffer {
        while true {
            let taken = state.withLock { state -> LargePageBuffer? in
                if let last = state.free.popLast() { return last }
                guard state.unmade > 0 else {
                    isFree.clear()
                    return nil
                }
                state.unmade -= 1
                return LargePageBuffer(byteCount: byteCount)
            }
            if let taken { return taken }
            isFree.wait()
        }
    }

    func giveBack(_ buffer: LargePageBuffer) {
        state.withLock { state in
            state.free.append(buffer)
            isFree.raise()
        }
    }
}
