/// Keeps objects alive beyond their owners, such as the last copy of a userfaultfd whose missing pages may still be
/// read.
package enum KeptObjects {
    private static let threads = ThreadGroup()

    /// Keeps an object until `wait` returns, on a thread that runs `wait`.
    ///
    /// `wait` must return once the object is no longer needed. If no thread can be started, the object is kept until
    /// this process exits.
    package static func keep(_ object: any AnyObject & Sendable, until wait: @escaping @Sendable () -> Void) {
        do throws(SystemError) {
            try threads.run("keep") {
                wait()
                withExtendedLifetime(object) {}
            }
        } catch {
            // Without a thread the object is kept for ever, which is harmless.
            keep(object)
        }
    }

    /// Keeps an object until this process exits.
    package static func keep(_ object: any AnyObject & Sendable) {
        _ = Unmanaged.passRetained(object)
    }

    /// Keeps an object in those of the regions that still exist, until they are unmapped.
    package static func keep(_ object: any AnyObject & Sendable, in regions: [WeakRegion]) {
        for region in regions { region.memory?.keep(object) }
    }

    /// A weak reference to a region.
    package struct WeakRegion: Sendable {
        fileprivate weak let memory: MemoryRegion?

        /// Creates a weak reference to a region.
        package init(_ memory: MemoryRegion) { self.memory = memory }
    }
}
