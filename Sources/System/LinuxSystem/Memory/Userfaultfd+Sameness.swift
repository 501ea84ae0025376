import CShims
import SystemPackage

extension Userfaultfd {
    /// Whether two descriptors stand for the same userfaultfd; nil if the kernel cannot tell (CONFIG_KCMP).
    package func isSame(as other: borrowing Userfaultfd) -> Bool? {
        let (one, another) = (descriptor.raw, other.descriptor.raw)
        // Without an answer, the caller has another way to find out.
        let order = try? kernel(.kcmp) { shim_compare_files(one, another) }
        return order.map { $0 == 0 }
    }
}
