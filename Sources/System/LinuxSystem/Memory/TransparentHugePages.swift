/// Collapses memory that is present in full into transparent huge pages, on a thread of its own, while others use it.
///
/// Dropping the value ends the work.
///
/// The thread rests after each huge page instead of running at a low priority. While it makes one, it holds up all
/// threads of the process that touch that page or map memory, so it must not have to wait for a processor.
package final class TransparentHugePages: Sendable {
    /// Bytes in a transparent huge page.
    static let pageSize = 2 << 20
    /// Milliseconds of rest after each huge page.
    private static let rest = 10

    private final class Flag: Sendable {
        let descriptor: EventDescriptor
        init() throws(SystemError) { descriptor = try EventDescriptor() }
    }

    private let ending: Flag
    private let thread: JoinedThread

    /// Whether the kernel makes transparent huge pages, at least for memory that asks for them (madvise).
    package static var areEnabled: Bool {
        ProcessFile.text("/sys/kernel/mm/transparent_hugepage/enabled").map { !$0.contains("[never]") } ?? false
    }

    /// Starts to collapse memory.
    ///
    /// - Parameters:
    ///   - regions: memory whose pages are all present, and which no userfaultfd holds. Regions of huge pages are
    ///     skipped.
    ///   - onFailure: called on the thread with the error that ended the work early.
    package init(
        for regions: [MemoryRegion],
        onFailure: @escaping @Sendable (SystemError) -> Void
    ) throws(SystemError) {
        let ending = try Flag()
        self.ending = ending
        thread = try JoinedThread(name: "collapse") {
            do throws(SystemError) {
                for region in regions where !region.range.isHuge {
                    guard try region.collapse({ !ending.descriptor.wait(milliseconds: TransparentHugePages.rest) })
                    else { return }
                }
            } catch {
                onFailure(error)
            }
        }
    }

    deinit {
        ending.descriptor.raise()
    }
}
