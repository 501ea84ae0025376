/// Objects that outlive their users, such as the last copy of a userfaultfd whose missing pages somebody may read.
public enum KeptObjects {
    private static let threads = ThreadGroup()

    /// Keeps an object until a wait is over, by a thread that waits.
    ///
    /// - Parameter wait: returns when the object is not needed any more.
    public static func keep(_ object: any AnyObject & Sendable, until wait: @escaping @Sendable () -> Void) {
        do throws(SystemError) {
            try threads.run("keep") {
                wait()
                withExtendedLifetime(object) {}
            }
        } catch {
            keep(object)
        }
    }

    /// Keeps an object until this process ends.
    public static func keep(_ object: any AnyObject & Sendable) {
        _ = Unmanaged.passRetained(object)
    }

    /// Keeps an object in whichever of the regions are still there, until they are unmapped.
    public static func keep(_ object: any AnyObject & Sendable, in regions: [WeakRegion]) {
        for region in regions { region.memory?.keep(object) }
    }

    /// A region, which is not kept by this.
    public struct WeakRegion: Sendable {
        fileprivate weak let memory: MemoryRegion?

        /// Refers to a region.
        public init(_ memory: MemoryRegion) { self.memory = memory }
    }
}
