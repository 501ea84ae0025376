/// Gives memory that has all of its pages transparent huge pages, on a thread of its own, beside whoever works in it.
/// Dropping it ends that.
///
/// It rests after each piece instead of running at a low priority: whoever makes one holds up all threads of the
/// process that touch it or map memory, and must not wait for a processor in the middle of it.
public final class TransparentHugePages: Sendable {
    /// Bytes in a transparent huge page.
    static let pageSize = 2 << 20
    /// How long it rests after each, in milliseconds.
    private static let rest = 10

    private final class Flag: Sendable {
        let descriptor: EventDescriptor
        init() throws(SystemError) { descriptor = try EventDescriptor() }
    }

    private let ending: Flag
    private let thread: JoinedThread

    /// Whether the kernel makes transparent huge pages for those who ask for them.
    public static var areEnabled: Bool {
        ProcessFile.text("/sys/kernel/mm/transparent_hugepage/enabled").map { !$0.contains("[never]") } ?? false
    }

    /// Begins.
    ///
    /// - Parameters:
    ///   - regions: memory whose pages are all present, and which no userfaultfd has; huge pages stay as they are.
    ///   - onFailure: told, on the thread, why it has ended early.
    public init(
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
