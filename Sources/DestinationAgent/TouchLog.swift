public import LinuxSystem
import Synchronization

/// Notes which pages were touched first, in order, in memory that may outlive this process.
///
/// The first word is how many there are; the pages follow at byte 64, each as a u32: its index in the memory's file.
///
/// `@unchecked Sendable`: the piece of memory is never moved, its words are touched atomically, and each place is written
/// once.
public final class TouchLog: @unchecked Sendable {
    private static let headerBytes = 64

    private let memory: SharedMemory
    private let count: UnsafeMutablePointer<Atomic<Int>>
    private let places: UnsafeMutablePointer<Atomic<UInt32>>
    private let capacity: Int
    private let firstPages: [UInt32]
    private let deadline: UInt64

    /// Bytes that a log of so many pages takes.
    public static func byteCount(capacity: Int) -> Int { headerBytes + capacity * 4 }

    /// Takes up what stands in a piece of memory, which at first holds zeros.
    ///
    /// - Parameters:
    ///   - offset: where the piece begins, in bytes; a multiple of 64.
    ///   - capacity: most pages that are noted.
    ///   - firstPages: the index in the file of each region's first page.
    ///   - deadline: until when pages are noted, in nanoseconds of ``MonotonicClock``.
    public init(in memory: SharedMemory, at offset: Int, capacity: Int, firstPages: [UInt32], deadline: UInt64) {
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

    /// The pages so far, in order; a page may come more than once.
    public var pages: [UInt32] {
        (0..<min(capacity, max(0, count.pointee.load(ordering: .relaxed)))).map {
            places[$0].load(ordering: .acquiring)
        }
    }
}
