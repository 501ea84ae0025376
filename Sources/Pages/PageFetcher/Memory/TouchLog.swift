package import LinuxSystem
import Synchronization

/// A log of pages in the order of their first touch, kept in memory that may outlive this process.
///
/// The first word is the number of pages. The pages follow at byte 64, each as a u32 with the page's index in the
/// memory's file.
///
/// `@unchecked Sendable`: the memory is never moved, its words are accessed atomically, and each entry is written once.
package final class TouchLog: @unchecked Sendable {
    private static let headerBytes = 64

    private let memory: SharedMemory
    private let count: UnsafeMutablePointer<Atomic<Int>>
    private let places: UnsafeMutablePointer<Atomic<UInt32>>
    private let capacity: Int
    private let firstPages: [UInt32]
    private let deadline: UInt64

    /// Bytes that a log for `capacity` pages needs.
    package static func byteCount(capacity: Int) -> Int { headerBytes + capacity * 4 }

    /// Continues the log in a piece of memory, which must hold zeros at first.
    ///
    /// - Parameters:
    ///   - memory: memory that may outlive this process.
    ///   - offset: the offset of the piece in bytes; a multiple of 64.
    ///   - capacity: the most pages to record.
    ///   - firstPages: the index in the file of each region's first page.
    ///   - deadline: the time until which pages are recorded, in nanoseconds of `MonotonicClock`.
    package init(in memory: SharedMemory, at offset: Int, capacity: Int, firstPages: [UInt32], deadline: UInt64) {
        self.memory = memory
        let piece = memory.piece(at: offset, byteCount: TouchLog.byteCount(capacity: capacity))
        count = piece.bindMemory(to: Atomic<Int>.self, capacity: 1)
        places = (piece + TouchLog.headerBytes).bindMemory(to: Atomic<UInt32>.self, capacity: capacity)
        self.capacity = capacity
        self.firstPages = firstPages
        self.deadline = deadline
    }

    @inline(__always)
    func note(_ page: Int, region: Int, now: UInt64) {
        guard now < deadline, count.pointee.load(ordering: .relaxed) < capacity else { return }
        let place = count.pointee.add(1, ordering: .relaxed).oldValue
        guard place < capacity else { return }
        places[place].store(firstPages[region] + UInt32(page), ordering: .releasing)
    }

    /// The pages recorded so far, in order; a page may appear more than once.
    package var pages: [UInt32] {
        (0..<min(capacity, max(0, count.pointee.load(ordering: .relaxed)))).map {
            places[$0].load(ordering: .acquiring)
        }
    }
}
